//! An open subscription, read in the background until it ends.

use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::ProvideErrorMetadata as _;
use aws_sdk_kinesis::types::{ShardIteratorType, StartingPosition, SubscribeToShardEventStream};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::answer::{failed, refused, text};
use crate::fill::Given;

/// What a subscription gave so far.
#[derive(Debug, Clone, Default, Serialize)]
struct Seen {
    data: Vec<String>,
    ended: bool,
    children: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Whether anything came at all.
    #[serde(skip)]
    begun: bool,
}

pub(crate) struct Subscription {
    seen: watch::Receiver<Seen>,
    _reading: AbortOnDropHandle<()>,
}

impl Subscription {
    pub(crate) async fn open(client: &Client, given: &Given<'_>) -> Result<Self, Value> {
        let position = given.within("StartingPosition");
        let position = position.as_ref().map(|position| {
            let kind = position.text("Type").map(|kind| ShardIteratorType::from(kind.as_str()));
            let built = StartingPosition::builder().set_type(kind).set_timestamp(position.time("Timestamp"));
            built.set_sequence_number(position.text("SequenceNumber")).build()
        });
        let position = position.transpose().map_err(|_| refused())?;
        let request = client.subscribe_to_shard().set_consumer_arn(given.text("ConsumerARN"));
        let request = request.set_shard_id(given.text("ShardId")).set_starting_position(position);
        let mut events = request.send().await.map_err(failed)?.event_stream;
        let (changed, seen) = watch::channel(Seen::default());
        let reading = async move {
            loop {
                match events.recv().await {
                    Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event))) => {
                        changed.send_modify(|seen| {
                            seen.begun = true;
                            seen.data.extend(event.records().iter().map(text));
                            let mut children: Vec<_> = event
                                .child_shards()
                                .iter()
                                .map(|child| child.shard_id().to_owned())
                                .collect();
                            children.sort();
                            seen.children.extend(children);
                        });
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => {
                        changed.send_modify(|seen| seen.error = error.code().map(str::to_owned));
                        break;
                    }
                }
            }
            changed.send_modify(|seen| (seen.begun, seen.ended) = (true, true));
        };
        Ok(Self { seen, _reading: AbortOnDropHandle::new(tokio::spawn(reading)) })
    }

    /// Waits for the first event.
    pub(crate) async fn begin(&mut self, seconds: f64) {
        let begun = self.seen.wait_for(|seen| seen.begun);
        // Where nothing came in time, what follows tells.
        let _ = tokio::time::timeout(Duration::from_secs_f64(seconds), begun).await;
    }

    /// Waits for so many records or the end; 0 waits for the end.
    pub(crate) async fn wait(&mut self, records: usize, seconds: f64) -> Value {
        let enough = self.seen.wait_for(|seen| seen.ended || (records > 0 && seen.data.len() >= records));
        let _ = tokio::time::timeout(Duration::from_secs_f64(seconds), enough).await;
        let seen = self.seen.borrow().clone();
        json!(seen)
    }
}
