//! The real `bootstrap` over several invocations: little time, and route tables that change in between.

use std::path::Path;
use std::time::Duration;

use headworks_local::faults::{Action, Fault};
use headworks_local::lambda::{Function, Program};
use headworks_router::metrics::name;
use tokio::time::{sleep, timeout};

use crate::bootstrap::{BOOTSTRAP, PATIENCE, create, events, read, settings};
use crate::common::{aggregate, record};

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_before_its_deadline_with_what_is_done() {
    let stack = headworks_local::start().await.unwrap();
    create(&stack, &["orders", "clicks"]).await;
    // Longer than any test runs: the destination accepts calls and answers none.
    let stall = Fault::on("PutRecords", Action::Delay(Duration::from_secs(3600))).resource("orders");
    let stalled = stack.faults().add(stall).unwrap();

    // The local Lambda gives no more time than that: an answer that is later is an error here.
    let directory = tempfile::tempdir().unwrap();
    let [errors, output] = ["errors", "output"].map(|name| directory.path().join(name));
    let mut program = logged(settings(&stack, &[]), &errors, &output);
    program.timeout = Duration::from_secs(5);
    let function = Function::program(program).unwrap();
    let [first, mixed, last] = [
        aggregate(&[record("k", "click", "a")]),
        aggregate(&[record("k", "click", "b"), record("k", "order.placed", "c")]),
        aggregate(&[record("k", "click", "d")]),
    ];
    let batch = events([("7", &*first), ("8", &*mixed), ("9", &*last)]);
    let answer = timeout(PATIENCE, function.invoke(batch)).await.unwrap().unwrap();
    assert_eq!(answer, r#"{"batchItemFailures":[{"itemIdentifier":"8"}]}"#);
    let data = |records: Vec<headworks_record::Record>| -> Vec<String> {
        records.iter().map(|record| String::from_utf8(record.data.to_vec()).unwrap()).collect()
    };
    assert_eq!(
        data(read(&stack, "clicks").await),
        ["a", "b", "d"],
        "the other destination has all that is its"
    );
    assert!(read(&stack, "orders").await.is_empty());
    let metrics = std::fs::read_to_string(&output).unwrap();
    let lines = metrics.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let pressed: Vec<_> = lines.filter(|line| !line["Destination"].is_null()).collect();
    let [orders] = &pressed[..] else { panic!("one destination is under pressure: {metrics}") };
    assert_eq!((&orders["Destination"], &orders[name::FAILED]), (&"orders".into(), &1.into()), "{metrics}");
    // The event says when its records arrived.
    assert!(orders[name::WAITING].as_u64() > Some(0), "{metrics}");

    // The same process goes on with what comes again.
    stack.faults().remove(stalled).unwrap();
    let again = events([("8", &*mixed), ("9", &*last)]);
    let answer = timeout(PATIENCE, function.invoke(again)).await.unwrap().unwrap();
    assert_eq!(answer, r#"{"batchItemFailures":[]}"#);
    assert_eq!(data(read(&stack, "orders").await), ["c"]);
    assert_eq!(function.counts().environments_started, 1);
    function.shutdown().await;
    stack.shutdown().await.unwrap();
}

/// The same program, with its output in these files.
fn logged(mut program: Program, errors: &Path, output: &Path) -> Program {
    let paths = [Path::new(BOOTSTRAP), errors, output].map(|path| path.to_str().unwrap().to_owned());
    program.path = "/bin/sh".into();
    program.args = vec!["-c".to_owned(), r#"exec "$0" 2>"$1" >"$2""#.to_owned()];
    program.args.extend(paths);
    program
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_changes_between_invocations_is_taken_if_it_is_good() {
    let stack = headworks_local::start().await.unwrap();
    create(&stack, &["one", "two"]).await;
    let directory = tempfile::tempdir().unwrap();
    let [routes, errors, output] =
        ["routes.toml", "errors", "output"].map(|name| directory.path().join(name));
    std::fs::write(&routes, "[default]\nto = \"one\"\n").unwrap();
    let vars = [("HEADWORKS_ROUTES", routes.to_str().unwrap()), ("HEADWORKS_ROUTES_CHECK_S", "1")];
    let function = Function::program(logged(settings(&stack, &vars), &errors, &output)).unwrap();

    let batch = events([("7", &*aggregate(&[record("k", "click", "a")]))]);
    let invoke = async || {
        let answer = function.invoke(batch.clone()).await.unwrap();
        assert_eq!(answer, r#"{"batchItemFailures":[]}"#);
    };
    // The function looks at the file once in a second; how often it is called until then is of no account.
    let until_logged = async |line: &str| {
        let logged = async {
            while !std::fs::read_to_string(&errors).unwrap().contains(line) {
                invoke().await;
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, logged).await.unwrap();
    };
    invoke().await;
    assert_eq!(read(&stack, "one").await.len(), 1);

    std::fs::write(&routes, "[default]\nto = \"s p\"\n").unwrap();
    until_logged("the route table in force stays").await;
    let log = std::fs::read_to_string(&errors).unwrap();
    assert!(log.contains("route-table-invalid") && log.contains("is no stream name"), "{log}");
    let before = read(&stack, "one").await.len();
    invoke().await;
    assert_eq!(read(&stack, "one").await.len(), before + 1, "the last good table is in force");
    assert!(read(&stack, "two").await.is_empty());

    std::fs::write(&routes, "[default]\nto = \"two\"\n").unwrap();
    until_logged("another route table is in force").await;
    let [one, two] = [read(&stack, "one").await.len(), read(&stack, "two").await.len()];
    assert!(two > 0, "the invocation that took the table used it");
    invoke().await;
    assert_eq!(read(&stack, "one").await.len(), one);
    assert_eq!(read(&stack, "two").await.len(), two + 1);
    assert_eq!(function.counts().invocations as usize, one + two + 1);
    assert_eq!(function.counts().environments_started, 1);

    let log = std::fs::read_to_string(&errors).unwrap();
    assert_eq!(
        log.matches("the route table in force stays").count(),
        1,
        "a bad table is refused once: {log}"
    );
    let metrics = std::fs::read_to_string(&output).unwrap();
    for metric in [name::TABLES_REFUSED, name::TABLES_LOADED] {
        assert!(metrics.contains(metric), "{metric} in {metrics}");
    }
    function.shutdown().await;
    stack.shutdown().await.unwrap();
}
