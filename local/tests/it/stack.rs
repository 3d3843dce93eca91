//! The stack as a whole: DynamoDB, S3, ports, the data directory, the end.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use aws_sdk_kinesis::types::ShardIteratorType;
use headworks_local::{Config, Stack};

use crate::support::{DEADLINE, FIRST};

async fn table(client: &aws_sdk_dynamodb::Client) {
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build().unwrap();
    let id = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S);
    client
        .create_table()
        .table_name("leases")
        .key_schema(key)
        .attribute_definitions(id.build().unwrap())
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await
        .unwrap();
}

fn put_once(
    client: &aws_sdk_dynamodb::Client,
) -> aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder {
    let id = AttributeValue::S("lease".to_owned());
    client.put_item().table_name("leases").item("id", id).condition_expression("attribute_not_exists(id)")
}

#[tokio::test]
async fn dynamodb_takes_conditional_writes() {
    let stack = headworks_local::start().await.unwrap();
    let client = stack.dynamodb();
    table(&client).await;
    put_once(&client).send().await.unwrap();
    let twice = put_once(&client).send().await.unwrap_err().into_service_error();
    assert!(twice.is_conditional_check_failed_exception(), "{twice:?}");
}

#[tokio::test]
async fn s3_keeps_objects_and_conditions() {
    let stack = headworks_local::start().await.unwrap();
    let client = stack.s3();
    client.create_bucket().bucket("dead-letters").send().await.unwrap();
    let nowhere = client.put_object().bucket("nowhere").key("k").body(b"{}".to_vec().into()).send().await;
    assert_eq!(nowhere.unwrap_err().raw_response().unwrap().status().as_u16(), 404);
    let put = || client.put_object().bucket("dead-letters").key("a/b c.json").body(b"{}".to_vec().into());
    put().send().await.unwrap();
    let got = client.get_object().bucket("dead-letters").key("a/b c.json").send().await.unwrap();
    assert_eq!(&got.body.collect().await.unwrap().into_bytes()[..], b"{}");
    let twice = put().if_none_match("*").send().await.unwrap_err();
    assert_eq!(twice.raw_response().unwrap().status().as_u16(), 412);
    let listed = client.list_objects_v2().bucket("dead-letters").prefix("a/").send().await.unwrap();
    assert_eq!(listed.contents().len(), 1);
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_remedy() {
    let stack = headworks_local::start().await.unwrap();
    let port: u16 = stack.kinesis_endpoint().rsplit_once(':').unwrap().1.parse().unwrap();
    for (config, service) in [
        (Config { kinesis_port: port, ..Config::default() }, "Kinesis"),
        (Config { dynamodb_port: port, ..Config::default() }, "DynamoDB"),
        (Config { s3_port: port, ..Config::default() }, "S3"),
    ] {
        let error = Stack::start(config).await.unwrap_err();
        assert_eq!(error.code(), "address-in-use");
        let message = error.to_string();
        assert!(message.contains(&format!("port {port} for {service} is already taken")), "{message}");
        assert!(message.contains("choose another port"), "{message}");
    }
}

#[tokio::test]
async fn shutdown_and_drop_free_the_ports() {
    let stack = headworks_local::start().await.unwrap();
    let port: u16 = stack.kinesis_endpoint().rsplit_once(':').unwrap().1.parse().unwrap();
    stack.kinesis().list_streams().send().await.unwrap();
    stack.shutdown().await.unwrap();
    stack.shutdown().await.unwrap();
    let again = Stack::start(Config { kinesis_port: port, ..Config::default() }).await.unwrap();
    again.kinesis().list_streams().send().await.unwrap();
    drop(again);
    let third = tokio::time::timeout(DEADLINE, async {
        loop {
            match Stack::start(Config { kinesis_port: port, ..Config::default() }).await {
                Ok(stack) => return stack,
                Err(error) => assert_eq!(error.code(), "address-in-use"),
            }
            tokio::task::yield_now().await;
        }
    });
    third.await.expect("dropping frees the port");
}

#[tokio::test]
async fn a_data_directory_keeps_streams_tables_and_objects() {
    let dir = tempfile::tempdir().unwrap();
    let config = || Config { data_dir: Some(dir.path().join("new")), ..Config::default() };
    let number = {
        let stack = Stack::start(config()).await.unwrap();
        let kinesis = stack.kinesis();
        kinesis.create_stream().stream_name("s").shard_count(1).tags("a", "b").send().await.unwrap();
        let arn = stack.engine().describe_stream("s").unwrap().arn;
        kinesis.register_stream_consumer().stream_arn(arn).consumer_name("c").send().await.unwrap();
        let put = kinesis.put_record().stream_name("s").partition_key("k").data(b"\x00\xff".to_vec().into());
        let number = put.send().await.unwrap().sequence_number;
        let split = kinesis.split_shard().stream_name("s").shard_to_split(FIRST);
        split.new_starting_hash_key((1u128 << 127).to_string()).send().await.unwrap();
        table(&stack.dynamodb()).await;
        put_once(&stack.dynamodb()).send().await.unwrap();
        stack.s3().create_bucket().bucket("objects").send().await.unwrap();
        stack
            .s3()
            .put_object()
            .bucket("objects")
            .key("k")
            .body(b"object".to_vec().into())
            .send()
            .await
            .unwrap();
        stack.shutdown().await.unwrap();
        number
    };

    let stack = Stack::start(config()).await.unwrap();
    let kinesis = stack.kinesis();
    let iterator = kinesis.get_shard_iterator().stream_name("s").shard_id(FIRST);
    let iterator = iterator.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
    let got = kinesis.get_records().set_shard_iterator(iterator.shard_iterator).send().await.unwrap();
    assert_eq!(got.records[0].sequence_number, number);
    assert_eq!(got.records[0].data.as_ref(), b"\x00\xff");
    assert_eq!(got.child_shards.unwrap().len(), 2);
    assert!(stack.engine().describe_consumer("s", "c").is_ok());
    let next = stack.engine().put("s", headworks_local::kinesis::PutEntry::new("k", "x")).unwrap();
    assert!(next.sequence.to_string() > number);
    assert!(put_once(&stack.dynamodb()).send().await.is_err(), "the item is still there");
    let object = stack.s3().get_object().bucket("objects").key("k").send().await.unwrap();
    assert_eq!(&object.body.collect().await.unwrap().into_bytes()[..], b"object");
    stack.shutdown().await.unwrap();

    std::fs::write(dir.path().join("new/kinesis.cbor"), b"nonsense").unwrap();
    let error = Stack::start(config()).await.unwrap_err();
    assert_eq!(error.code(), "local-snapshot-unreadable");
    assert!(error.to_string().contains("move it away to start empty"), "{error}");
}
