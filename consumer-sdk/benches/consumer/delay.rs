//! From a put to the handler, beside a bare subscription to the same stream.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{ShardIteratorType, StartingPosition, SubscribeToShardEventStream};
use headworks_consumer::{Batch, Consumer, Handler, HandlerError, Start};
use headworks_record::Record;
use headworks_record::aggregate::{self, Builder, Decoded};

use crate::figure;
use crate::support::Running;

/// Time between puts: 200 Kinesis records a second.
const EVERY: Duration = Duration::from_millis(5);

type Delays = Arc<Mutex<Vec<f64>>>;

pub fn measure(quick: bool) {
    let puts = if quick { 20 } else { 4_000 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (ours, bare) = runtime.block_on(run(puts));
    for (metric, share) in [("p50_ms", 0.5), ("p99_ms", 0.99)] {
        let other = quantile(&bare, share);
        figure("delay", metric, quantile(&ours, share), "ms", Some(("bare SubscribeToShard", other)));
    }
}

fn quantile(delays: &Delays, share: f64) -> f64 {
    let mut delays = delays.lock().unwrap().clone();
    delays.sort_by(f64::total_cmp);
    delays[((delays.len() - 1) as f64 * share) as usize]
}

async fn run(puts: usize) -> (Delays, Delays) {
    let stack = headworks_local::start().await.unwrap();
    stack.kinesis().create_stream().stream_name("orders").shard_count(1).send().await.unwrap();
    let (ours, bare) = (Delays::default(), Delays::default());
    let subscribing = tokio::spawn(subscribe(stack.kinesis(), bare.clone()));
    let consumer = Consumer::builder("bench", "orders")
        .kinesis(stack.kinesis())
        .dynamodb(stack.dynamodb())
        .start(Start::TrimHorizon)
        .build()
        .unwrap();
    let delays = ours.clone();
    let running = Running::start(consumer, move |_| Timing(delays.clone()));
    running.until(|status| status.is_caught_up()).await.unwrap();
    // Until both read, and nothing of their beginnings is measured.
    let reading = || ours.lock().unwrap().len().min(bare.lock().unwrap().len());
    while reading() == 0 {
        put(&stack.kinesis()).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    ours.lock().unwrap().clear();
    bare.lock().unwrap().clear();
    eprintln!("delay: {puts} puts, one every {EVERY:?}");
    let mut ticks = tokio::time::interval(EVERY);
    for _ in 0..puts {
        ticks.tick().await;
        put(&stack.kinesis()).await;
    }
    while reading() < puts {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    subscribing.abort();
    running.stop().await;
    stack.shutdown().await.unwrap();
    (ours, bare)
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// One record whose data is the time of its put.
async fn put(client: &Client) {
    let mut builder = Builder::new();
    let record = Record::builder("key").unwrap().header("type", "order.placed").unwrap();
    builder.push(&record.data(now_us().to_string()).build());
    let data = Blob::new(builder.finish().to_vec());
    client.put_record().stream_name("orders").partition_key("key").data(data).send().await.unwrap();
}

fn delay(data: &[u8]) -> f64 {
    let put: u64 = std::str::from_utf8(data).unwrap().parse().unwrap();
    now_us().saturating_sub(put) as f64 / 1_000.0
}

struct Timing(Delays);

impl Handler for Timing {
    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        let mut delays = self.0.lock().unwrap();
        delays.extend(batch.iter().map(|delivered| delay(&delivered.record.data)));
        Ok(())
    }
}

/// The bare subscription: takes aggregates apart and does nothing else.
async fn subscribe(client: Client, delays: Delays) {
    let summary = client.describe_stream_summary().stream_name("orders").send().await.unwrap();
    let arn = summary.stream_description_summary().unwrap().stream_arn().to_owned();
    let registered = client.register_stream_consumer().stream_arn(&arn).consumer_name("bare");
    let consumer = registered.send().await.unwrap().consumer.unwrap().consumer_arn;
    let shards = client.list_shards().stream_name("orders").send().await.unwrap();
    let position = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon).build().unwrap();
    let mut output = loop {
        let request = client.subscribe_to_shard().consumer_arn(&consumer);
        let request = request.shard_id(shards.shards()[0].shard_id()).starting_position(position.clone());
        match request.send().await {
            Ok(output) => break output,
            // Until the consumer is active.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    while let Ok(Some(event)) = output.event_stream.recv().await {
        let SubscribeToShardEventStream::SubscribeToShardEvent(event) = event else { continue };
        for record in event.records {
            let Ok(Decoded::Aggregate(aggregate)) = aggregate::decode(&record.data.into_inner().into())
            else {
                panic!("no aggregate")
            };
            let found: Vec<f64> = aggregate.members().map(|member| delay(member.data())).collect();
            delays.lock().unwrap().extend(found);
        }
    }
}
