//! The codec against PyPI's `aws_kinesis_agg`, in both directions.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use headworks_record::aggregate::{Builder, Decoded, decode};
use headworks_record::{Creation, HashKey, Record};
use serde_json::Value;

/// Partition key, explicit hash key, data.
type Plain = (String, Option<String>, Vec<u8>);

fn plain(blob: &Bytes) -> Vec<Plain> {
    let Decoded::Aggregate(aggregate) = decode(blob).unwrap() else { panic!("no aggregate: {blob:?}") };
    let member = |m: headworks_record::aggregate::Member<'_>| {
        (m.key().to_owned(), m.explicit_hash_key().map(str::to_owned), m.data().to_vec())
    };
    aggregate.members().map(member).collect()
}

fn plain_json(member: &Value, data: &str) -> Plain {
    let text = |name: &str| member[name].as_str().map(str::to_owned);
    (text("partition_key").unwrap(), text("explicit_hash_key"), STANDARD.decode(text(data).unwrap()).unwrap())
}

fn golden(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(headworks_tests::python().unwrap())
        .arg(headworks_tests::repository().join("tests/python/golden.py"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // From a thread of its own: the child may write before it has read everything.
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
    let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn vectors_of_the_library_are_read_exactly() {
    let file = headworks_tests::repository().join("record/tests/golden/kpl.json");
    let vectors: Vec<Value> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert!(vectors.len() >= 10);
    for vector in &vectors {
        let blob = Bytes::from(STANDARD.decode(vector["blob_base64"].as_str().unwrap()).unwrap());
        let expected: Vec<Plain> = vector["members"]
            .as_array()
            .unwrap()
            .iter()
            .map(|member| plain_json(member, "data_base64"))
            .collect();
        assert_eq!(plain(&blob), expected, "{}", vector["name"]);
    }
}

fn ours() -> Vec<Vec<Record>> {
    let record = |key: &str, data: &str| {
        Record::builder(key.to_owned())
            .unwrap()
            .header("type", "order.placed")
            .unwrap()
            .header("tenant", "ünïcode")
            .unwrap()
            .creation(Creation::mint(1_790_000_000_000, [3; 18]))
            .data(data.to_owned())
            .build()
    };
    let placed = |n: u128| Record { explicit_hash_key: Some(HashKey(n)), ..record("placed", "x") };
    let many = (0..1_000).map(|n| record(&format!("key-{}", n % 300), &"y".repeat(n % 200))).collect();
    vec![
        vec![record("alone", "{}")],
        vec![record("a", "1"), record("b", ""), record("a", "3")],
        vec![record("ключ", "данные")],
        vec![placed(0), placed(u128::MAX), placed(0)],
        vec![record("megabyte", &"z".repeat(1_000_000))],
        many,
    ]
}

#[test]
fn the_library_reads_what_we_write() {
    let blobs: Vec<Bytes> = ours()
        .iter()
        .map(|records| {
            let mut builder = Builder::new();
            records.iter().for_each(|record| builder.push(record));
            builder.finish()
        })
        .collect();
    let input: String = blobs.iter().map(|blob| STANDARD.encode(blob) + "\n").collect();
    let mut read: Vec<Vec<Plain>> = vec![Vec::new(); blobs.len()];
    for line in golden(&["decode"], &input).lines() {
        let member: Value = serde_json::from_str(line).unwrap();
        let blob = member["blob"].as_u64().unwrap() as usize;
        read[blob].push(plain_json(&member, "data"));
    }
    let written: Vec<Vec<Plain>> = blobs.iter().map(plain).collect();
    assert_eq!(read, written);
}

#[test]
fn we_read_what_the_library_writes() {
    let input: String = ours()
        .iter()
        .map(|records| {
            let line = |record: &Record| {
                serde_json::json!({
                    "partition_key": record.key.as_str(),
                    "explicit_hash_key": record.explicit_hash_key.map(|hash| hash.to_string()),
                    "data": STANDARD.encode(&record.data),
                })
                .to_string()
                    + "\n"
            };
            records.iter().map(line).collect::<String>() + "\n"
        })
        .collect();
    let output = golden(&["encode"], &input);
    let blobs: Vec<Bytes> = output.lines().map(|line| STANDARD.decode(line).unwrap().into()).collect();
    assert_eq!(blobs.len(), ours().len());
    for (blob, records) in blobs.iter().zip(ours()) {
        let expected: Vec<Plain> = records
            .iter()
            .map(|r| (r.key.as_str().to_owned(), r.explicit_hash_key.map(|h| h.to_string()), r.data.to_vec()))
            .collect();
        assert_eq!(plain(blob), expected);
    }
}
