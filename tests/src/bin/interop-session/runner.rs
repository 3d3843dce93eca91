//! One run of a session.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_kinesis::Client;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::calls::call;
use crate::fill::{Given, Names, fill};
use crate::subscription::Subscription;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    #[serde(rename = "name")]
    _name: String,
    op: String,
    #[serde(rename = "in")]
    given: Value,
    save: HashMap<String, String>,
}

pub(crate) struct Runner {
    client: Client,
    names: Names,
    held: HashMap<String, Subscription>,
}

impl Runner {
    pub(crate) fn new(client: Client, stream: String) -> Self {
        Self { client, names: HashMap::from([("stream".to_owned(), stream.into())]), held: HashMap::new() }
    }

    pub(crate) async fn run(mut self, steps: &[Step]) -> Vec<Value> {
        let mut answers = Vec::new();
        for step in steps {
            let given = fill(&step.given, &self.names);
            let empty = Map::new();
            let given = Given(given.as_object().unwrap_or(&empty));
            let answer = self.step(&step.op, &given).await;
            for (name, path) in &step.save {
                let pointer = format!("/{}", path.replace('.', "/"));
                let saved = answer.pointer(&pointer).cloned().unwrap_or(Value::Null);
                self.names.insert(name.clone(), saved);
            }
            answers.push(answer);
        }
        answers
    }

    async fn step(&mut self, operation: &str, given: &Given<'_>) -> Value {
        match operation {
            "@active" => {
                let stream = Map::from_iter([("StreamName".to_owned(), json!(given.text("stream")))]);
                let status = "/StreamDescriptionSummary/StreamStatus";
                self.until_active("DescribeStreamSummary", &Given(&stream), status).await
            }
            "@consumer" => {
                self.until_active("DescribeStreamConsumer", given, "/ConsumerDescription/ConsumerStatus")
                    .await
            }
            "@pause" => {
                tokio::time::sleep(Duration::from_secs_f64(given.number("seconds"))).await;
                json!({})
            }
            "@now" => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                json!({"time": now.as_secs_f64()})
            }
            "@drain" => self.drain(given).await.unwrap_or_else(|error| error),
            "@subscribe" => self.subscribe(given).await.unwrap_or_else(|error| error),
            "@collect" => match self.held.get_mut(&given.text("hold").unwrap_or_default()) {
                Some(subscription) => subscription.wait(0, 5.0).await,
                None => json!({"error": "NotOpen", "message": ""}),
            },
            _ => call(&self.client, operation, given).await,
        }
    }

    async fn until_active(&self, operation: &str, given: &Given<'_>, status: &str) -> Value {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = call(&self.client, operation, given).await;
            if answer.get("error").is_some() {
                return answer;
            }
            if answer.pointer(status).is_some_and(|status| status == "ACTIVE") {
                return json!({});
            }
            if Instant::now() > end {
                return json!({"timeout": true});
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn drain(&self, given: &Given<'_>) -> Result<Value, Value> {
        let ok = |answer: Value| if answer.get("error").is_some() { Err(answer) } else { Ok(answer) };
        let answer = ok(call(&self.client, "GetShardIterator", given).await)?;
        let mut iterator = answer["ShardIterator"].clone();
        let (mut data, mut children) = (Vec::new(), Vec::new());
        for _ in 0..50 {
            let next = Map::from_iter([("ShardIterator".to_owned(), iterator)]);
            let answer = ok(call(&self.client, "GetRecords", &Given(&next)).await)?;
            let records = answer["Records"].as_array().cloned().unwrap_or_default();
            data.extend(records.iter().map(|record| record["Data"].clone()));
            let mut ids: Vec<_> = answer["ChildShards"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|child| child["ShardId"].as_str().map(str::to_owned))
                .collect();
            ids.sort();
            children.extend(ids);
            iterator = answer["NextShardIterator"].clone();
            let caught_up = records.is_empty() && answer["MillisBehindLatest"].as_i64().unwrap_or(0) == 0;
            if iterator.is_null() || caught_up {
                break;
            }
        }
        Ok(json!({"data": data, "ended": iterator.is_null(), "children": children}))
    }

    async fn subscribe(&mut self, given: &Given<'_>) -> Result<Value, Value> {
        let mut subscription = Subscription::open(&self.client, given).await?;
        let seconds = given.number("seconds");
        match given.text("hold").filter(|hold| !hold.is_empty()) {
            Some(hold) => {
                subscription.begin(seconds).await;
                self.held.insert(hold, subscription);
                Ok(json!({}))
            }
            None => Ok(subscription.wait(given.number("records") as usize, seconds).await),
        }
    }
}
