//! The real `bootstrap` binary through the Runtime API, against the embedded stack.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{aggregate, record, seal};
use aws_sdk_kinesis::types::{Record as KinesisRecord, Shard, ShardIteratorType};
use bytes::Bytes;
use headworks_local::Stack;
use headworks_local::lambda::{Config, Function, FunctionError, Mapping, Program};
use headworks_local::stack::{ACCESS_KEY, SECRET_KEY};
use headworks_record::Record;
use headworks_record::aggregate::{Decoded, decode};
use headworks_router::dead_letter::Letter;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

pub(crate) const BOOTSTRAP: &str = env!("CARGO_BIN_EXE_bootstrap");
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/routes.example.toml");
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

fn program(stack: &Stack, extra: &[(&str, &str)]) -> Function {
    Function::program(settings(stack, extra)).unwrap()
}

/// The router as a function that works on the stack.
pub(crate) fn settings(stack: &Stack, extra: &[(&str, &str)]) -> Program {
    let mut program = Program::new("router", BOOTSTRAP);
    let vars = [
        ("HEADWORKS_ROUTES", EXAMPLE),
        ("HEADWORKS_S3_PATH_STYLE", "true"),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_ENDPOINT_URL_KINESIS", &stack.kinesis_endpoint()),
        ("AWS_ENDPOINT_URL_S3", &stack.s3_endpoint()),
    ];
    program.env = vars.iter().chain(extra).map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    program
}

pub(crate) async fn create(stack: &Stack, streams: &[&str]) {
    create_with(stack, streams, 2).await;
}

pub(crate) async fn create_with(stack: &Stack, streams: &[&str], shards: i32) {
    for stream in streams {
        stack.kinesis().create_stream().stream_name(*stream).shard_count(shards).send().await.unwrap();
        let active = async {
            loop {
                let summary =
                    stack.kinesis().describe_stream_summary().stream_name(*stream).send().await.unwrap();
                let status = summary.stream_description_summary().unwrap().stream_status().clone();
                if status == aws_sdk_kinesis::types::StreamStatus::Active {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, active).await.unwrap();
    }
}

/// Every Kinesis record with the shard that it is on, shard by shard.
pub(crate) async fn read_shards(stack: &Stack, stream: &str) -> Vec<(Shard, KinesisRecord)> {
    let client = stack.kinesis();
    let mut records = Vec::new();
    for shard in client.list_shards().stream_name(stream).send().await.unwrap().shards() {
        let iterator = client.get_shard_iterator().stream_name(stream).shard_id(shard.shard_id());
        let iterator = iterator.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
        let mut next = iterator.shard_iterator;
        // A closed shard ends without another iterator.
        while let Some(iterator) = next {
            let got = client.get_records().shard_iterator(iterator).send().await.unwrap();
            next = got.next_shard_iterator.filter(|_| !got.records.is_empty());
            records.extend(got.records.into_iter().map(|found| (shard.clone(), found)));
        }
    }
    records
}

/// The data of every Kinesis record, shard by shard.
pub(crate) async fn read_blobs(stack: &Stack, stream: &str) -> Vec<Bytes> {
    let records = read_shards(stack, stream).await;
    records.into_iter().map(|(_, found)| Bytes::from(found.data.into_inner())).collect()
}

pub(crate) async fn read(stack: &Stack, stream: &str) -> Vec<Record> {
    let mut records = Vec::new();
    for blob in read_blobs(stack, stream).await {
        let Decoded::Aggregate(aggregate) = decode(&blob).unwrap() else {
            panic!("records with headers are always aggregated")
        };
        assert_eq!(aggregate.origins().count(), aggregate.len());
        records.extend(aggregate.members().map(|member| member.to_record().unwrap()));
    }
    records
}

async fn put(stack: &Stack, data: Bytes) {
    let blob = aws_sdk_kinesis::primitives::Blob::new(data);
    stack.kinesis().put_record().stream_name("inbound").partition_key("a").data(blob).send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_real_mapping_are_routed() {
    let stack = headworks_local::start().await.unwrap();
    create(&stack, &["inbound", "orders", "payments", "clicks", "default"]).await;
    stack.s3().create_bucket().bucket("letters").send().await.unwrap();
    let function = program(&stack, &[("HEADWORKS_DEAD_LETTER_BUCKET", "letters")]);

    let sent: Vec<Record> = (0..60)
        .map(|i| {
            record(
                &format!("session-{}", i % 5),
                ["order.placed", "click", "login"][i % 3],
                &format!("{i:02}"),
            )
        })
        .collect();
    // As another writer aggregates them: delivered whole, wherever their shard is.
    for record in &sent {
        put(&stack, kpl_of(record)).await;
    }
    put(&stack, seal(&[0x0a, 1, b'k', 0x1a, 5, 0x08, 1, 0x1a, 1, b'y'])).await;
    put(&stack, Bytes::from_static(b"plain")).await;

    let config = Config { report_batch_item_failures: true, ..Config::new("inbound") };
    let mapping = Mapping::start(Arc::clone(stack.engine()), function.clone(), config).unwrap();
    timeout(PATIENCE, mapping.wait_idle()).await.unwrap().unwrap();
    assert_eq!(function.counts().errors, 0);

    for (stream, kind) in [("orders", "order.placed"), ("clicks", "click")] {
        let got = read(&stack, stream).await;
        for session in 0..5 {
            let key = format!("session-{session}");
            let data = |records: &[Record]| -> Vec<Bytes> {
                let ours =
                    records.iter().filter(|r| r.key.as_str() == key && r.headers.get("type") == Some(kind));
                ours.map(|r| r.data.clone()).collect()
            };
            assert_eq!(data(&got), data(&sent), "{stream} {key}");
        }
        assert_eq!(got.len(), 20);
    }
    let rest = read(&stack, "default").await;
    assert_eq!(rest.len(), 21);
    assert!(rest.iter().all(|record| record.headers.creation().is_some()));

    let listed = stack.s3().list_objects_v2().bucket("letters").send().await.unwrap();
    let keys: Vec<&str> = listed.contents().iter().filter_map(|object| object.key()).collect();
    assert!(
        matches!(keys[..], [key] if key.starts_with("dead-letters/inbound/shardId-") && key.ends_with("-all.json")),
        "{keys:?}"
    );
    let object = stack.s3().get_object().bucket("letters").key(keys[0]).send().await.unwrap();
    let letter: Letter = serde_json::from_slice(&object.body.collect().await.unwrap().into_bytes()).unwrap();
    assert_eq!(letter.reasons[0].code, "aggregate-index-out-of-range");

    mapping.shutdown().await;
    function.shutdown().await;
    stack.shutdown().await.unwrap();
}

/// A record as another writer would aggregate it: with tags, without our envelope.
fn kpl_of(record: &Record) -> Bytes {
    let field = |tag: u8, bytes: &[u8]| [&[tag, bytes.len() as u8][..], bytes].concat();
    let tag = [field(0x0a, b"type"), field(0x12, record.headers.get("type").unwrap().as_bytes())].concat();
    let member = [vec![0x08, 0], field(0x1a, &record.data), field(0x22, &tag)].concat();
    seal(&[field(0x0a, record.key.as_str().as_bytes()), field(0x1a, &member)].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_destination_blocks_only_without_a_bucket() {
    let stack = headworks_local::start().await.unwrap();
    create(&stack, &["clicks"]).await;
    stack.s3().create_bucket().bucket("letters").send().await.unwrap();
    let members = [record("k", "click", "a"), record("k", "order.placed", "b")];
    let event = event(&aggregate(&members));
    for (extra, answer) in [
        (&[][..], r#"{"batchItemFailures":[{"itemIdentifier":"7"}]}"#),
        (
            &[("HEADWORKS_DEAD_LETTER_BUCKET", "nowhere")][..],
            r#"{"batchItemFailures":[{"itemIdentifier":"7"}]}"#,
        ),
        (&[("HEADWORKS_DEAD_LETTER_BUCKET", "letters")][..], r#"{"batchItemFailures":[]}"#),
    ] {
        let function = program(&stack, extra);
        let got = timeout(PATIENCE, function.invoke(event.clone())).await.unwrap().unwrap();
        assert_eq!(got, answer, "{extra:?}");
        function.shutdown().await;
    }
    let key = "dead-letters/inbound/shardId-000000000000/7-1.json";
    let object = stack.s3().get_object().bucket("letters").key(key).send().await.unwrap();
    let letter: Letter = serde_json::from_slice(&object.body.collect().await.unwrap().into_bytes()).unwrap();
    assert_eq!(
        (&*letter.reasons[0].code, letter.reasons[0].destination.as_deref()),
        ("destination-missing", Some("orders"))
    );
    assert_eq!(letter.data, "b");

    let function = program(&stack, &[]);
    let error = function.invoke(Bytes::from_static(br#"{"Records":[{}]}"#)).await.unwrap_err();
    assert!(
        matches!(&error, FunctionError::Reported { message, .. } if message.contains("missing field")),
        "{error}"
    );
    function.shutdown().await;
    stack.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_progress_table_spares_destinations_what_they_have() {
    let stack = headworks_local::start().await.unwrap();
    create(&stack, &["clicks"]).await;
    crate::progress::create_table(&stack.dynamodb()).await;
    let event = event(&aggregate(&[record("k", "click", "a"), record("k", "order.placed", "b")]));
    let dynamodb = stack.dynamodb_endpoint();
    // The stream of orders is missing, and there is no bucket: the shard waits. With every attempt in a
    // new process, only the table knows what was done. A missing table costs repeats and nothing else.
    for (table, clicks) in [("progress", 1), ("missing", 4)] {
        for _ in 0..3 {
            let vars = [("HEADWORKS_PROGRESS_TABLE", table), ("AWS_ENDPOINT_URL_DYNAMODB", &dynamodb)];
            let function = program(&stack, &vars);
            let got = timeout(PATIENCE, function.invoke(event.clone())).await.unwrap().unwrap();
            assert_eq!(got, r#"{"batchItemFailures":[{"itemIdentifier":"7"}]}"#);
            function.shutdown().await;
        }
        assert_eq!(read(&stack, "clicks").await.len(), clicks, "{table}");
    }
    stack.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_table_with_dead_letters_wants_a_bucket() {
    let directory = tempfile::tempdir().unwrap();
    let table = directory.path().join("routes.toml");
    std::fs::write(&table, "[default]\ndead-letter = true\n").unwrap();
    let mut command = bare();
    in_lambda(&mut command, "127.0.0.1:9");
    let output = command.env("HEADWORKS_ROUTES", &table).output().await.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("dead-letters-not-configured: ") && text.contains("HEADWORKS_DEAD_LETTER_BUCKET"),
        "{text}"
    );
}

/// A Lambda event with one Kinesis record, sequence number 7.
fn event(data: &[u8]) -> Bytes {
    events([("7", data)])
}

/// A Lambda event with these Kinesis records: sequence numbers and data.
pub(crate) fn events<'r>(records: impl IntoIterator<Item = (&'r str, &'r [u8])>) -> Bytes {
    use base64::Engine as _;
    let one = |(sequence_number, data): (&str, &[u8])| {
        let data = base64::engine::general_purpose::STANDARD.encode(data);
        serde_json::json!({
            "kinesis": {
                "kinesisSchemaVersion": "1.0", "partitionKey": "hw/shardId-000000000000/0",
                "sequenceNumber": sequence_number, "data": data,
                "approximateArrivalTimestamp": 1_790_000_000.5,
            },
            "eventSource": "aws:kinesis", "eventVersion": "1.0",
            "eventID": format!("shardId-000000000000:{sequence_number}"), "eventName": "aws:kinesis:record",
            "invokeIdentityArn": "arn:aws:iam::0:role/r", "awsRegion": "us-east-1",
            "eventSourceARN": "arn:aws:kinesis:us-east-1:000000000000:stream/inbound",
        })
    };
    let records: Vec<_> = records.into_iter().map(one).collect();
    Bytes::from(serde_json::json!({ "Records": records }).to_string())
}

fn bare() -> Command {
    let mut command = Command::new(BOOTSTRAP);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn in_lambda(command: &mut Command, api: &str) {
    command
        .env("AWS_LAMBDA_RUNTIME_API", api)
        .env("AWS_LAMBDA_FUNCTION_NAME", "router")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
        .env("AWS_REGION", "us-east-1")
        .env("HEADWORKS_ROUTES", EXAMPLE);
}

#[tokio::test]
async fn it_says_why_it_does_not_start() {
    let output = bare().output().await.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.starts_with("not-in-lambda: AWS_LAMBDA_RUNTIME_API is not set"), "{text}");

    let directory = tempfile::tempdir().unwrap();
    let table = directory.path().join("routes.toml");
    std::fs::write(&table, "\n[[rules]]\nwhen.type = \"a\"\n").unwrap();
    let mut command = bare();
    in_lambda(&mut command, "127.0.0.1:9");
    let output = command.env("HEADWORKS_ROUTES", &table).output().await.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("route-table-invalid: ") && text.contains("[default]"), "{text}");
}

/// A Runtime API that hands out one event or none, and a Kinesis that answers when it is told to.
pub(crate) struct Api {
    address: String,
    /// An invocation was asked for that there is not.
    asked: Arc<Notify>,
    /// Kinesis was called; it answers when it may.
    called: Arc<Notify>,
    answer: watch::Sender<bool>,
    /// The function has answered.
    pub(crate) answered: Arc<Notify>,
    /// What the function answered.
    pub(crate) response: Arc<Mutex<Option<Bytes>>>,
}

impl Api {
    async fn start(event: Option<Bytes>) -> Self {
        Self::start_with(event, Duration::from_secs(60)).await
    }

    /// Says that the invocation may take this long.
    pub(crate) async fn start_with(event: Option<Bytes>, limit: Duration) -> Self {
        use axum::http::{HeaderMap, StatusCode};
        use axum::routing::{get, post};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let [asked, called, answered] = [(); 3].map(|()| Arc::new(Notify::new()));
        let answer = watch::Sender::new(false);
        let response = Arc::new(Mutex::new(None));
        let api = Self { address, asked, called, answer, answered, response };

        let (event, asked) = (Arc::new(Mutex::new(event)), Arc::clone(&api.asked));
        let next = move || {
            let (event, asked) = (event.lock().unwrap().take(), Arc::clone(&asked));
            async move {
                let Some(event) = event else {
                    asked.notify_one();
                    return std::future::pending().await;
                };
                let mut headers = HeaderMap::new();
                headers.insert("lambda-runtime-aws-request-id", "r-1".parse().unwrap());
                let deadline = headworks_telemetry::now_ms() + limit.as_millis() as u64;
                headers.insert("lambda-runtime-deadline-ms", deadline.into());
                (headers, event)
            }
        };
        let (called, answer) = (Arc::clone(&api.called), api.answer.subscribe());
        let kinesis = move || {
            let (called, mut answer) = (Arc::clone(&called), answer.clone());
            async move {
                called.notify_one();
                answer.wait_for(|open| *open).await.unwrap();
                (
                    StatusCode::BAD_REQUEST,
                    r#"{"__type":"ResourceNotFoundException","message":"no such stream"}"#,
                )
            }
        };
        let (response, answered) = (Arc::clone(&api.response), Arc::clone(&api.answered));
        let respond = move |body: Bytes| {
            *response.lock().unwrap() = Some(body);
            answered.notify_one();
            async { StatusCode::ACCEPTED }
        };
        let server = axum::Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/r-1/response", post(respond))
            .route("/", post(kinesis));
        tokio::spawn(async move { axum::serve(listener, server).await });
        api
    }

    fn spawn(&self) -> Child {
        self.spawn_with(&format!("http://{}", self.address), &[])
    }

    pub(crate) fn spawn_with(&self, kinesis: &str, extra: &[(&str, &str)]) -> Child {
        let mut command = bare();
        in_lambda(&mut command, &self.address);
        command
            .env("AWS_ENDPOINT_URL_KINESIS", kinesis)
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .envs(extra.iter().copied());
        command.spawn().unwrap()
    }
}

async fn terminate(child: &Child) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
}

#[tokio::test]
async fn sigterm_ends_an_idle_function() {
    let api = Api::start(None).await;
    let mut child = api.spawn();
    timeout(PATIENCE, api.asked.notified()).await.unwrap();
    terminate(&child).await;
    let status = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn sigterm_lets_the_invocation_in_flight_finish() {
    let api = Api::start(Some(event(&aggregate(&[record("k", "click", "a")])))).await;
    let mut child = api.spawn();
    timeout(PATIENCE, api.called.notified()).await.unwrap();
    terminate(&child).await;
    api.answer.send_replace(true);
    let status = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
    // A missing stream is poison, and there is no bucket: reported as failed, not lost.
    let response = api.response.lock().unwrap().take();
    assert_eq!(response.as_deref(), Some(&br#"{"batchItemFailures":[{"itemIdentifier":"7"}]}"#[..]));
}
