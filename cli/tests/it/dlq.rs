//! Dead letters of a real bucket, from the terminal.

use bytes::Bytes;
use headworks_local::Stack;
use headworks_router::dead_letter::{Letter, Position, Reason};
use headworks_router::{Bucket, DeadLetters as _};

use crate::support::{Ran, command, finish, run};

const CONTEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn letter(number: u32, code: &str, destination: &str) -> Letter {
    let (code, destination) = (code.to_owned(), Some(destination.to_owned()));
    Letter {
        version: 1,
        reasons: vec![Reason { code, message: "it was refused\n\u{1b}[2J".to_owned(), destination }],
        origin: Position {
            stream: "inbound".to_owned(),
            shard: "shardId-000000000000".to_owned(),
            sequence_number: (4900 + number).to_string(),
            sub_sequence_number: Some(number),
            arrival_ms: 1_790_000_000_040,
        },
        partition_key: format!("key-{number}"),
        explicit_hash_key: None,
        traceparent: CONTEXT.to_owned(),
        created_ms: 1_790_000_000_000,
        headers: vec![("type".to_owned(), "order.placed".to_owned())],
        data: Bytes::from(format!("{{\"n\":{number}}}")),
    }
}

/// A stack with the stream `orders` and these letters.
async fn stack_with(letters: &[Letter]) -> Stack {
    let stack = headworks_local::start().await.unwrap();
    stack.kinesis().create_stream().stream_name("orders").shard_count(1).send().await.unwrap();
    stack.s3().create_bucket().bucket("letters").send().await.unwrap();
    let bucket = Bucket::new(stack.s3(), "letters");
    for letter in letters {
        bucket.write(letter).await.unwrap();
    }
    stack
}

async fn dlq(stack: &Stack, arguments: &[&str]) -> Ran {
    let mut command = command(&[&["dlq"], arguments].concat());
    command.env("AWS_ENDPOINT_URL_S3", stack.s3_endpoint());
    command.env("AWS_ENDPOINT_URL_KINESIS", stack.kinesis_endpoint());
    command.env("HEADWORKS_DEAD_LETTER_BUCKET", "letters");
    let child = command.spawn().unwrap();
    tokio::task::spawn_blocking(move || finish(child)).await.unwrap()
}

async fn orders(stack: &Stack) -> Vec<serde_json::Value> {
    let endpoint = stack.kinesis_endpoint();
    let child = command(&["tail", "orders", "--endpoint-url", &endpoint, "--json"]).spawn().unwrap();
    tokio::task::spawn_blocking(move || finish(child)).await.unwrap().succeeds().json()
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_by_what_they_say_and_shown_whole() {
    let letters = [
        letter(1, "destination-refused", "orders"),
        letter(2, "destination-refused", "clicks"),
        letter(3, "record-too-large", "orders"),
    ];
    let stack = stack_with(&letters).await;
    stack
        .s3()
        .put_object()
        .bucket("letters")
        .key("dead-letters/z")
        .body(b"x".to_vec().into())
        .send()
        .await
        .unwrap();

    let all = dlq(&stack, &["list", "--json"]).await.succeeds();
    assert_eq!(all.json().len(), 4);
    assert_eq!(all.json()[0]["partition_key"], "key-1");
    assert!(all.json()[3]["invalid"].is_string(), "{}", all.stdout);
    let keys = |ran: &Ran| -> Vec<String> {
        ran.json().iter().filter_map(|line| line["partition_key"].as_str().map(str::to_owned)).collect()
    };
    let listed = dlq(&stack, &["list", "--json", "--reason", "destination-refused"]).await.succeeds();
    assert_eq!(keys(&listed), ["key-1", "key-2"]);
    let listed =
        dlq(&stack, &["list", "--json", "--destination", "orders", "--since", "1h"]).await.succeeds();
    assert_eq!(keys(&listed), ["key-1", "key-3"]);
    let listed = dlq(&stack, &["list", "--json", "--until", "1h"]).await.succeeds();
    assert_eq!(keys(&listed), [""; 0]);
    let first = dlq(&stack, &["list", "--limit", "1"]).await.succeeds();
    assert!(first.stdout.ends_with("-1.json destination-refused (orders)\n"), "{}", first.stdout);
    let after = first.stderr.split("--after ").nth(1).unwrap().trim();
    let second =
        dlq(&stack, &["list", "--json", "--stream", "inbound", "--limit", "1", "--after", after]).await;
    assert_eq!(keys(&second.succeeds()), ["key-2"]);

    let shown = dlq(&stack, &["show", &letters[0].key()]).await.succeeds().stdout;
    for text in [
        "destination-refused, not on orders",
        "key-1",
        "type=order.placed",
        CONTEXT,
        "4901:1",
        "{\"n\":1}",
        "2026-09-21T14:13:20.040Z",
    ] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    assert!(!shown.contains('\u{1b}'), "{shown}");
    let shown = dlq(&stack, &["show", "--json", &letters[1].key()]).await.succeeds().json();
    assert_eq!((&shown[0]["data"]["n"], &shown[0]["origin"]["stream"]), (&2.into(), &"inbound".into()));
    assert_eq!(dlq(&stack, &["show", "--payload", &letters[2].key()]).await.succeeds().stdout, "{\"n\":3}");

    dlq(&stack, &["show", "dead-letters/none"])
        .await
        .fails(3, &["dead-letters/none", "[dead-letter-missing]"]);
    dlq(&stack, &["show", "dead-letters/z"]).await.fails(1, &["dead-letters/z", "[dead-letter-invalid]"]);
    let other = dlq(&stack, &["list", "--bucket", "nowhere"]).await;
    other.fails(3, &["s3://nowhere", "[dead-letter-unreadable]"]);
    stack.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_go_back_with_their_identity_and_what_stays_is_said() {
    let letters: Vec<Letter> = (1..=40).map(|n| letter(n, "destination-refused", "orders")).collect();
    let stack = stack_with(&letters).await;
    let unasked = dlq(&stack, &["redrive", "--to", "orders"]).await;
    unasked.fails(2, &["40 dead letters", "orders", "--yes", "[confirmation-missing]"]);
    let dry = dlq(&stack, &["redrive", "--to", "orders", "--dry-run", "--json"]).await.succeeds();
    assert_eq!(dry.json().len(), 40);
    assert_eq!(orders(&stack).await.len(), 0);

    let some = dlq(&stack, &["redrive", "--to", "orders", "--limit", "5", "--yes"]).await.succeeds();
    assert!(some.stderr.contains("5 dead letters went"), "{}", some.stderr);
    // The same command goes on with what is left.
    let rest = dlq(&stack, &["redrive", "--to", "orders", "--yes", "--json"]).await.succeeds();
    assert_eq!(rest.json().len(), 35);
    assert!(rest.json().iter().all(|line| line["outcome"] == "done" && line["streams"][0] == "orders"));
    let stored = orders(&stack).await;
    assert_eq!(stored.len(), 40);
    assert!(
        stored.iter().all(|line| line["traceparent"] == CONTEXT && line["headers"]["type"] == "order.placed")
    );
    let none = dlq(&stack, &["redrive", "--to", "orders", "--yes"]).await.succeeds();
    assert!(none.stderr.contains("no such dead letters"), "{}", none.stderr);
    stack.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_table_says_where_letters_lack() {
    let stack = stack_with(&[letter(1, "x-y", "orders"), letter(2, "x-y", "gone")]).await;
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.toml");
    std::fs::write(&routes, "[default]\nto = \"orders\"\nset.redriven = \"yes\"\n").unwrap();
    let routes = routes.to_str().unwrap();
    let ran = dlq(&stack, &["redrive", "--routes", routes, "--yes", "--json"]).await;
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    let outcomes: Vec<_> = ran.json().iter().map(|line| line["outcome"].to_string()).collect();
    assert_eq!(outcomes, ["\"done\"", "\"left\""]);
    assert_eq!(ran.json()[1]["reasons"][0]["code"], "dead-letter-not-redrivable");
    assert!(ran.stderr.contains("1 dead letters went, 1 stay as they are"), "{}", ran.stderr);
    assert_eq!(orders(&stack).await[0]["headers"]["redriven"], "yes");
    stack.shutdown().await.unwrap();
}

#[test]
fn what_is_missing_is_said() {
    assert_eq!(run(&["dlq", "list"]).code, Some(2));
    assert_eq!(run(&["dlq", "redrive", "--bucket", "b"]).code, Some(2));
    run(&["dlq", "list", "--bucket", "b", "--since", "once"]).fails(2, &["once", "[time-invalid]"]);
    let ran = run(&["dlq", "redrive", "--bucket", "b", "--routes", "/no/such.toml"]);
    ran.fails(3, &["/no/such.toml", "[route-table-unreadable]"]);
}
