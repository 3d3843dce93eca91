//! The teams: one consumer per outbound stream.

use std::collections::BTreeMap;

use anyhow::Context as _;
use headworks_consumer::{Batch, Consumer, Handler, HandlerError, Status};
use headworks_telemetry::Telemetry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::books::Books;
use crate::pipeline::{Pipeline, telemetry};

/// Running consumers.
#[derive(Debug)]
pub(super) struct Consumers {
    running: Vec<Running>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Running {
    stream: String,
    handle: headworks_consumer::Handle,
    task: JoinHandle<Result<headworks_consumer::Summary, headworks_consumer::Error>>,
    telemetry: Telemetry,
}

#[derive(Debug)]
struct Note(Books);

impl Handler for Note {
    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        self.0.handled(batch.records());
        Ok(())
    }
}

impl Consumers {
    /// Starts them and waits until each reads all shards of its stream.
    pub(super) async fn start(pipeline: &Pipeline, books: &Books, trace_ratio: f64) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let mut running = Vec::new();
        for stream in pipeline.outbound() {
            let application = format!("demo-{stream}");
            let telemetry = telemetry(&format!("team-{stream}"), &pipeline.otlp_endpoint(), trace_ratio)?;
            let consumer = Consumer::builder(application, stream)
                .kinesis(pipeline.stack().kinesis())
                .dynamodb(pipeline.stack().dynamodb())
                .tracer(telemetry.tracer())
                .build()?;
            let handle = consumer.handle();
            let books = books.clone();
            let task = tokio::spawn(consumer.run(move |_shard| Note(books.clone()), stop.clone()));
            running.push(Running { stream: stream.clone(), handle, task, telemetry });
        }
        for consumer in &running {
            let ready = consumer.handle.wait_until(Status::is_caught_up).await;
            ready.with_context(|| format!("the consumer of {}", consumer.stream))?;
        }
        Ok(Self { running, stop })
    }

    /// Drains them; gives the last status of each, by stream.
    pub(super) async fn stop(self) -> anyhow::Result<BTreeMap<String, Status>> {
        self.stop.cancel();
        let mut ended_as = BTreeMap::new();
        for consumer in self.running {
            let ended =
                consumer.task.await.with_context(|| format!("the consumer of {}", consumer.stream))?;
            let summary = ended.with_context(|| format!("the consumer of {}", consumer.stream))?;
            consumer.telemetry.shutdown().await;
            ended_as.insert(consumer.stream, summary.status);
        }
        Ok(ended_as)
    }
}
