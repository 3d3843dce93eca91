//! Random tables and records against the reference: each record goes to precisely the destinations that the table says.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use headworks_record::{Headers, PartitionKey, Record};
use headworks_router::Router;
use headworks_router::table::{RouteTable, Subject, explain_subject, route_subject};
use proptest::prelude::*;
use serde_json::Value;

use super::random::{samples, tables, written};
use super::reference::{Sample, Sent, interpret};
use crate::common::{Letters, Shards, Streams, aggregate, event, invocation};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_record_goes_precisely_where_the_table_says(
        table in tables(), records in prop::collection::vec(samples(), 1..20),
    ) {
        let text = written(&table);
        let compiled = match RouteTable::from_json(&text.to_string()) {
            Ok(compiled) => compiled,
            Err(error) => {
                // Only what the documentation says is refused.
                let text = error.to_string();
                let known = ["in different forms", "lies within the other", "it is not kept",
                    "the name that it has", "are renamed to", "nodes", "opening brackets"];
                prop_assert!(known.iter().any(|reason| text.contains(reason)), "{}", text);
                return Ok(());
            }
        };
        let from_toml = RouteTable::from_toml(&toml::to_string(&text).unwrap()).unwrap();
        let mut everywhere: Vec<(String, Sample)> = Vec::new();
        let mut letters = 0;
        for sample in &records {
            let (expected, buried) = interpret(&table, sample);
            letters += usize::from(buried || expected.iter().any(|(_, _, data)| data == "refused"));
            for (stream, pairs, data) in expected.iter().filter(|(_, _, data)| data != "refused") {
                let mut headers = Headers::new();
                headers.set_creation(*sample.headers.creation().unwrap());
                pairs.iter().for_each(|(name, value)| headers.set(name.clone(), value.clone()).unwrap());
                everywhere.push((stream.clone(), Sample { key: sample.key.clone(), headers, data: data.clone() }));
            }
            for compiled in [&compiled, &from_toml] {
                let mut headers = sample.headers.clone();
                compiled.derive(&mut headers, sample.data.as_bytes()).unwrap();
                let subject = Subject { headers: &headers, key: &sample.key, data: sample.data.as_bytes() };
                let destinations = route_subject(&subject, compiled);
                let sent: Sent = destinations.iter().map(|d| {
                    let (mut changed, mut data) = (headers.clone(), Bytes::from(sample.data.clone()));
                    let text = match d.transform.apply(&mut changed, &mut data) {
                        Ok(()) => String::from_utf8(data.to_vec()).unwrap(),
                        Err(_) => "refused".to_owned(),
                    };
                    prop_assert_eq!(changed.creation(), sample.headers.creation());
                    let mut pairs: Vec<(String, String)> =
                        changed.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
                    pairs.sort();
                    // Fields keep their order, the reference's are sorted.
                    let reordered = d.transform.is_identity() || text == "refused" || !text.starts_with('{');
                    let text = if reordered {
                        text
                    } else {
                        serde_json::from_str::<Value>(&text).unwrap().to_string()
                    };
                    Ok((d.stream.to_string(), pairs, text))
                }).collect::<Result<_, TestCaseError>>()?;
                prop_assert_eq!(&sent, &expected);
                prop_assert_eq!(destinations.dead_letter().is_some(), buried);
                prop_assert_eq!(destinations.is_dropped(), expected.is_empty() && !buried);
                let distinct: BTreeSet<&str> = destinations.streams().collect();
                prop_assert_eq!(distinct.len(), destinations.len());
                let explanation = explain_subject(&subject, compiled);
                prop_assert_eq!(explanation.destinations.len(), destinations.len());
                prop_assert_eq!(explanation.default, destinations.rule().is_none());
                prop_assert_eq!(explanation.dead_letter.is_some(), buried);
                prop_assert_eq!(explanation.dropped, destinations.is_dropped());
            }
        }
        handled(&text.to_string(), &records, everywhere, letters)?;
    }
}

/// One invocation over all the records, in aggregates of three: each destination gets each record precisely once,
/// in order, in its form, and what can go nowhere is in the dead letters.
fn handled(
    text: &str,
    records: &[Sample],
    expected: Vec<(String, Sample)>,
    letters: usize,
) -> Result<(), TestCaseError> {
    let all: Vec<Record> = records
        .iter()
        .map(|sample| Record {
            key: PartitionKey::new(sample.key.clone()).unwrap(),
            explicit_hash_key: None,
            headers: sample.headers.clone(),
            data: sample.data.clone().into(),
        })
        .collect();
    let event = event(all.chunks(3).map(aggregate).collect());
    let streams = Arc::new(Streams::new(|_, _| Ok(())));
    let dead = Arc::new(Letters::default());
    let table = Arc::new(RouteTable::from_json(text).unwrap());
    let router = Router::new(table, streams.clone(), dead.clone(), Arc::new(Shards::default()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let report = runtime.block_on(async { router.handle(&event, &invocation()).await }).unwrap();
    prop_assert_eq!(report.failed, None);
    prop_assert_eq!(dead.keys().len(), letters);
    let form = |key: &str, headers: &Headers, data: &[u8]| {
        let mut pairs: Vec<String> = headers.iter().map(|(n, v)| format!("{n}={v}")).collect();
        pairs.sort();
        // Where a payload is changed its fields keep their order, the reference's are sorted.
        let unsorted = std::str::from_utf8(data).unwrap();
        let sorted = serde_json::from_slice::<Value>(data).map_or(unsorted.to_owned(), |v| v.to_string());
        (key.to_owned(), *headers.creation().unwrap(), pairs, sorted)
    };
    let mut streams_seen = BTreeSet::new();
    for (stream, _) in &expected {
        if !streams_seen.insert(stream.clone()) {
            continue;
        }
        let wanted: Vec<_> = expected
            .iter()
            .filter(|(name, _)| name == stream)
            .map(|(_, sample)| form(&sample.key, &sample.headers, sample.data.as_bytes()))
            .collect();
        let found: Vec<_> =
            streams.records(stream).iter().map(|r| form(r.key.as_str(), &r.headers, &r.data)).collect();
        prop_assert_eq!(found, wanted, "{}", stream);
    }
    let stored: usize = streams.stored.lock().unwrap().values().map(Vec::len).sum();
    prop_assert_eq!(stored, expected.len(), "nothing else is put anywhere");
    // Where the record's payload is not for the rule to change, it is the very same bytes.
    for (record, _) in
        streams.stored.lock().unwrap().iter().flat_map(|(name, all)| match name.starts_with('v') {
            true => &[][..],
            false => &all[..],
        })
    {
        let source = records.iter().find(|sample| sample.headers.creation() == record.headers.creation());
        prop_assert_eq!(&record.data[..], source.unwrap().data.as_bytes());
    }
    Ok(())
}
