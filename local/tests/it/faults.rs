//! Faults on demand, as clients meet them.

use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::operation::put_records::PutRecordsOutput;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType as Kind};
use headworks_local::faults::{Action, Fault, FaultId};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::support::{DEADLINE, FIRST, Fixture, SECOND, fixture, from, texts};

const LAST: u128 = u128::MAX;

impl Fixture {
    fn fault(&self, text: &str) -> FaultId {
        self.stack.faults().add(Fault::parse(text).unwrap()).unwrap()
    }

    fn fired(&self, id: FaultId) -> u64 {
        self.stack.faults().fired(id)
    }

    /// A client that does not try again: what happens once must be seen.
    fn once(&self) -> aws_sdk_kinesis::Client {
        let config = self.client.config().to_builder();
        let retry = aws_sdk_kinesis::config::retry::RetryConfig::disabled();
        aws_sdk_kinesis::Client::from_conf(config.retry_config(retry).build())
    }

    async fn put_all(&self, hashes: &[u128]) -> PutRecordsOutput {
        let entries = hashes.iter().map(|hash| {
            let entry = PutRecordsRequestEntry::builder().partition_key(format!("key-{hash}"));
            entry.explicit_hash_key(hash.to_string()).data(Blob::new("x")).build().unwrap()
        });
        let call = self.client.put_records().stream_name("s").set_records(Some(entries.collect()));
        call.send().await.unwrap()
    }
}

/// The codes of the answers, by entry.
fn codes(put: &PutRecordsOutput) -> Vec<Option<&str>> {
    put.records.iter().map(|record| record.error_code.as_deref()).collect()
}

#[tokio::test]
async fn entries_of_a_put_are_throttled_one_by_one_and_the_same_again() {
    let f = fixture().await;
    f.create("s", 2).await;
    let id = f.fault("put-records throttle p=0.3 seed=7 stream=s");
    let first = f.put_all(&[0; 100]).await;
    let failed = usize::try_from(first.failed_record_count.unwrap()).unwrap();
    assert!((10..60).contains(&failed), "{failed} of 100 at p=0.3");
    assert_eq!(f.fired(id), failed as u64);
    assert_eq!(f.stack.engine().held().1, 100 - failed, "what is refused is not stored");
    let message = first.records.iter().find_map(|record| record.error_message.as_deref()).unwrap();
    assert_eq!(message, format!("Rate exceeded for shard {FIRST} in stream s under account 000000000000."));

    f.stack.faults().clear();
    f.fault("put-records throttle p=0.3 seed=7 stream=s");
    assert_eq!(codes(&f.put_all(&[0; 100]).await), codes(&first), "the seed decides");

    f.stack.faults().clear();
    f.fault(&format!("put-records error=InternalFailure shard={SECOND} n=2"));
    f.fault("put-records throttle key=key-5 stream=s");
    f.fault("put-records throttle stream=other");
    let put = f.put_all(&[LAST, 0, LAST, 5, LAST]).await;
    let throttled = Some("ProvisionedThroughputExceededException");
    assert_eq!(codes(&put), [None, None, Some("InternalFailure"), throttled, None]);
}

#[tokio::test]
async fn calls_are_refused_with_any_code_and_late() {
    let f = fixture().await;
    f.create("s", 1).await;
    let once = f.once();
    let put = || once.put_record().stream_name("s").partition_key("k").data(Blob::new("x")).send();

    let id = f.fault("put-record error=KMSThrottlingException n=2");
    put().await.unwrap();
    let error = put().await.unwrap_err().into_service_error();
    assert!(error.is_kms_throttling_exception(), "{error:?}");
    put().await.unwrap();
    assert_eq!((f.fired(id), f.stack.engine().held().1), (1, 2));

    f.stack.faults().clear();
    f.fault("put-record error=ServiceUnavailable after=commit times=1");
    let error = put().await.unwrap_err();
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 503);
    assert_eq!(error.code(), Some("ServiceUnavailable"));
    assert_eq!(f.stack.engine().held().1, 3, "it was stored all the same");

    f.fault("put-record delay=60ms times=1");
    let started = Instant::now();
    put().await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(60));

    f.stack.faults().clear();
    f.fault("list-streams throttle");
    let error = once.list_streams().send().await.unwrap_err().into_service_error();
    assert!(error.is_limit_exceeded_exception(), "{error:?}");
    f.fault("put-records throttle-call");
    let call = once.put_records().stream_name("s");
    let entry = PutRecordsRequestEntry::builder().partition_key("k").data(Blob::new("x")).build().unwrap();
    let error = call.records(entry).send().await.unwrap_err().into_service_error();
    assert!(error.is_provisioned_throughput_exceeded_exception(), "{error:?}");
}

#[tokio::test]
async fn answers_are_lost_after_the_commit_calls_doubled_or_dropped() {
    let f = fixture().await;
    f.create("s", 1).await;
    let once = f.once();
    let put = || once.put_record().stream_name("s").partition_key("k").data(Blob::new("x")).send();
    let held = || f.stack.engine().held().1;

    let id = f.fault("put-record lost times=1");
    let error = put().await.unwrap_err();
    assert!(error.raw_response().is_none(), "no answer at all: {error:?}");
    assert_eq!((held(), f.fired(id)), (1, 1));

    f.fault("put-record duplicate times=1");
    put().await.unwrap();
    assert_eq!(held(), 3);

    f.fault("put-record reset times=1");
    let error = put().await.unwrap_err();
    assert!(error.raw_response().is_none(), "{error:?}");
    assert_eq!(held(), 3, "nothing has happened");
    put().await.unwrap();
    assert_eq!(held(), 4);

    // A client that tries again puts what it already has put.
    f.fault("put-records lost times=1");
    f.put_all(&[0; 10]).await;
    assert_eq!(held(), 24);
}

#[tokio::test]
async fn over_http_2_a_lost_answer_ends_its_stream() {
    let f = fixture().await;
    f.create("s", 1).await;
    let address = f.stack.kinesis_endpoint().strip_prefix("http://").unwrap().to_owned();
    let socket = TokioIo::new(tokio::net::TcpStream::connect(&address).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), socket).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut call = || {
        let body = r#"{"StreamName":"s","PartitionKey":"k","Data":"eA=="}"#;
        let request = http::Request::post(format!("http://{address}/"))
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", "Kinesis_20131202.PutRecord")
            .body(http_body_util::Full::new(bytes::Bytes::from(body)));
        tokio::time::timeout(DEADLINE, sender.send_request(request.unwrap()))
    };
    f.fault("put-record lost n=1");
    call().await.unwrap().unwrap_err();
    assert_eq!(f.stack.engine().held().1, 1);
    assert_eq!(call().await.unwrap().unwrap().status().as_u16(), 200, "the connection itself is well");
    driver.abort();
}

#[tokio::test]
async fn iterators_expire_on_demand() {
    let f = fixture().await;
    f.create("s", 2).await;
    let first = f.iterator("s", FIRST, Kind::TrimHorizon).await;
    let second = f.iterator("s", SECOND, Kind::TrimHorizon).await;
    f.fault(&format!("get-records expire-iterator shard={FIRST} times=1"));
    f.get(&second).await;
    let error = f.client.get_records().shard_iterator(&first).send().await.unwrap_err().into_service_error();
    assert!(error.is_expired_iterator_exception(), "{error:?}");
    f.get(&first).await;
}

#[tokio::test]
async fn a_subscription_is_cut_in_the_middle_of_an_event() {
    let f = fixture().await;
    let arn = f.create("s", 1).await;
    let consumer = f.register(&arn, "c").await;
    f.put("s", 0, "a").await;
    let id = f.fault("subscribe-to-shard reset n=2");
    let mut events = f.subscribe(&consumer, FIRST, from(Kind::TrimHorizon)).await;
    assert_eq!(events.records(1).await, ["a"]);
    f.put("s", 0, "b").await;
    let cut = events.try_next().await.unwrap_err();
    assert!(!cut.contains("Exception"), "no message of the service: {cut}");
    assert_eq!(f.fired(id), 1);

    // The consumer comes again, as after any broken connection.
    f.clock.advance_ms(5_000);
    let mut events = f.subscribe(&consumer, FIRST, from(Kind::TrimHorizon)).await;
    assert_eq!(events.records(2).await, ["a", "b"]);
}

#[tokio::test]
async fn a_subscription_stalls_with_its_connection_open() {
    let settings = headworks_local::Settings {
        heartbeat: Duration::from_millis(5),
        ..headworks_local::Settings::default()
    };
    let f = crate::support::fixture_with(settings).await;
    let arn = f.create("s", 1).await;
    let consumer = f.register(&arn, "c").await;
    let id = f.fault(&format!("subscribe-to-shard stall n=2 shard={FIRST}"));
    let mut events = f.subscribe(&consumer, FIRST, from(Kind::Latest)).await;
    events.next().await;
    f.put("s", 0, "a").await;
    let silence = tokio::time::timeout(Duration::from_millis(200), events.try_next()).await;
    assert!(silence.is_err(), "neither record, heartbeat nor end: {silence:?}");
    assert_eq!(f.fired(id), 1);
    // A new subscription takes over as after any lost one; the stalled one learns nothing of it.
    f.clock.advance_ms(5_000);
    let mut second = f.subscribe(&consumer, FIRST, from(Kind::TrimHorizon)).await;
    assert_eq!(second.records(1).await, ["a"]);
    let silence = tokio::time::timeout(Duration::from_millis(50), events.try_next()).await;
    assert!(silence.is_err(), "{silence:?}");
}

#[tokio::test]
async fn one_shard_has_an_outage() {
    let f = fixture().await;
    let arn = f.create("s", 2).await;
    let consumer = f.register(&arn, "c").await;
    let mut events = f.subscribe(&consumer, FIRST, from(Kind::Latest)).await;
    let mut healthy = f.subscribe(&consumer, SECOND, from(Kind::Latest)).await;
    events.next().await;
    healthy.next().await;
    let iterator = f.iterator("s", FIRST, Kind::Latest).await;

    let outage = f.stack.faults().add(Fault::outage("s", FIRST)).unwrap();
    let ended = events.try_next().await.unwrap_err();
    assert!(ended.contains("InternalFailureException"), "{ended}");
    let put = f.put_all(&[0, LAST]).await;
    assert_eq!(codes(&put), [Some("InternalFailure"), None]);
    assert_eq!(healthy.records(1).await, ["x"]);
    let once = f.once();
    let error = once.get_records().shard_iterator(&iterator).send().await.unwrap_err();
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 500);
    let call = once.put_record().stream_name("s").partition_key("k").explicit_hash_key("0");
    assert!(call.data(Blob::new("x")).send().await.is_err());
    let call = once.get_shard_iterator().stream_name("s").shard_id(FIRST);
    assert!(call.shard_iterator_type(Kind::Latest).send().await.is_err());
    once.list_shards().stream_name("s").send().await.expect("the stream itself is there");

    let fired = f.stack.faults().remove(outage).unwrap();
    assert_eq!((fired.fired, fired.seen), (5, 5));
    f.put("s", 0, "back").await;
    assert_eq!(texts(&f.get(&iterator).await), ["back"]);
}

#[tokio::test]
async fn dynamodb_is_slow_or_fails_before_or_after_the_commit() {
    let stack = headworks_local::start().await.unwrap();
    let retry = aws_sdk_dynamodb::config::retry::RetryConfig::disabled();
    let config = stack.dynamodb().config().to_builder().retry_config(retry);
    let client = aws_sdk_dynamodb::Client::from_conf(config.build());
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build().unwrap();
    let id = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S);
    let create = client.create_table().table_name("leases").key_schema(key);
    let create = create.attribute_definitions(id.build().unwrap()).billing_mode(BillingMode::PayPerRequest);
    create.send().await.unwrap();
    let put = |id: &str| {
        let call = client.put_item().table_name("leases").item("id", AttributeValue::S(id.to_owned()));
        call.condition_expression("attribute_not_exists(id)").send()
    };
    let fault = |text: &str| stack.faults().add(Fault::parse(text).unwrap()).unwrap();

    let before = fault("dynamodb:put-item throttle table=leases times=1");
    fault("dynamodb:put-item throttle table=other");
    let error = put("a").await.unwrap_err().into_service_error();
    assert!(error.is_provisioned_throughput_exceeded_exception(), "{error:?}");
    assert_eq!(stack.faults().fired(before), 1);
    put("a").await.expect("nothing was stored before");

    fault("dynamodb:put-item error=InternalServerError after=commit times=1");
    let error = put("b").await.unwrap_err().into_service_error();
    assert!(error.is_internal_server_error(), "{error:?}");
    let error = put("b").await.unwrap_err().into_service_error();
    assert!(error.is_conditional_check_failed_exception(), "stored before the error: {error:?}");

    fault("dynamodb:put-item lost key=lost-one");
    put("c").await.expect("another key");
    let error = put("lost-one").await.unwrap_err();
    assert!(error.raw_response().is_none(), "{error:?}");
    stack.faults().clear();
    assert!(put("lost-one").await.unwrap_err().into_service_error().is_conditional_check_failed_exception());

    fault("dynamodb:any duplicate times=1");
    let error = put("d").await.unwrap_err().into_service_error();
    assert!(error.is_conditional_check_failed_exception(), "the second of two: {error:?}");

    fault("dynamodb:put-item delay=60ms times=1");
    let started = Instant::now();
    put("e").await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(60));
    stack.shutdown().await.unwrap();
}

#[tokio::test]
async fn s3_refuses() {
    let stack = headworks_local::start().await.unwrap();
    let retry = aws_sdk_s3::config::retry::RetryConfig::disabled();
    let config = stack.s3().config().to_builder().retry_config(retry);
    let client = aws_sdk_s3::Client::from_conf(config.build());
    client.create_bucket().bucket("objects").send().await.unwrap();
    let put = |key: &str| client.put_object().bucket("objects").key(key).body(b"{}".to_vec().into()).send();
    let fault = |text: &str| stack.faults().add(Fault::parse(text).unwrap()).unwrap();

    fault("s3:put-object error=AccessDenied bucket=objects key=secret");
    put("open/1").await.unwrap();
    let error = put("secret/1").await.unwrap_err();
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 403);
    assert_eq!(error.code(), Some("AccessDenied"));

    fault("s3:put-object throttle times=1");
    let error = put("open/2").await.unwrap_err();
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 503);
    assert_eq!(error.code(), Some("SlowDown"));

    fault("s3:put-object lost times=1");
    assert!(put("open/3").await.unwrap_err().raw_response().is_none());
    let listed = client.list_objects_v2().bucket("objects").send().await.unwrap();
    let keys: Vec<_> = listed.contents().iter().filter_map(|object| object.key()).collect();
    assert_eq!(keys, ["open/1", "open/3"], "stored before the answer was lost");
}

#[tokio::test]
async fn faults_that_cannot_happen_are_refused() {
    let f = fixture().await;
    let error = f.stack.faults().add(Fault::on("PutRecords", Action::Stall)).unwrap_err();
    assert_eq!(error.code(), "local-fault-invalid");
    assert_eq!(
        error.to_string(),
        "bad fault \"PutRecords stall\": this action is only for SubscribeToShard of Kinesis"
    );
    assert!(f.stack.faults().list().is_empty());
}

pub(crate) async fn control(
    endpoint: &str,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, serde_json::Value) {
    let address = endpoint.strip_prefix("http://").unwrap();
    let socket = TokioIo::new(tokio::net::TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(socket).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = http::Request::builder().method(method).uri(path).header("host", address);
    let body = http_body_util::Full::new(bytes::Bytes::from(body.to_owned()));
    let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    driver.abort();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn faults_come_and_go_over_the_control_port() {
    let config = headworks_local::Config { faults_port: Some(0), ..headworks_local::Config::default() };
    let stack = headworks_local::Stack::start(config).await.unwrap();
    let endpoint = stack.faults_endpoint().unwrap();
    let text = "put-records throttle p=0.5 seed=7\n";
    let (status, answer) = control(&endpoint, "POST", "/faults", text).await;
    assert_eq!((status, answer), (201, serde_json::json!({ "id": 1 })));
    control(&endpoint, "POST", "/faults", "list-streams throttle").await;
    assert!(stack.kinesis().list_streams().send().await.is_err());
    let (status, answer) = control(&endpoint, "GET", "/faults", "").await;
    assert_eq!(status, 200);
    let first =
        serde_json::json!({ "id": 1, "fault": "PutRecords throttle p=0.5 seed=7", "seen": 0, "fired": 0 });
    assert_eq!(answer[0], first);
    assert!(answer[1]["fired"].as_u64().unwrap() >= 1, "{answer}");
    assert_eq!(control(&endpoint, "DELETE", "/faults/1", "").await, (200, first));
    assert_eq!(control(&endpoint, "DELETE", "/faults/1", "").await.0, 404);
    let (status, answer) = control(&endpoint, "POST", "/faults", "put-records explode").await;
    assert_eq!((status, answer["code"].as_str()), (400, Some("local-fault-invalid")));
    assert!(answer["message"].as_str().unwrap().contains("is no action"), "{answer}");
    assert_eq!(control(&endpoint, "PUT", "/", "").await.0, 404);
    assert_eq!(control(&endpoint, "DELETE", "/faults", "").await.0, 200);
    stack.kinesis().list_streams().send().await.unwrap();
    stack.shutdown().await.unwrap();
}
