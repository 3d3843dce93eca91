//! Route tables on the command line.

use crate::support::{run, run_with};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../router-lambda/routes.example.toml");

#[test]
fn a_header_is_explained() {
    let ran = run(&["routes", "test", "--routes", EXAMPLE, "--header", "type=order.placed"]).succeeds();
    assert!(ran.stdout.contains("-> orders"), "{}", ran.stdout);
    assert!(ran.stdout.contains("rule 1 \"orders\""), "{}", ran.stdout);
}

#[test]
fn lines_are_explained_one_by_one() {
    let input = "{\"type\":\"order.placed\"}\n\n{}\n{\"key\":\"k\",\"headers\":{\"type\":\"page.view\"},\"data\":{}}\n";
    let ran = run_with(&["routes", "test", "--routes", EXAMPLE, "--json"], input).succeeds();
    let streams: Vec<String> =
        ran.json().iter().map(|line| line["destinations"][0]["stream"].to_string()).collect();
    assert_eq!(streams, ["\"orders\"", "\"default\"", "\"clicks\""]);
    let bad = run_with(&["routes", "test", "--routes", EXAMPLE], "{}\n{\"type\":1}\n");
    bad.fails(2, &["line 2", "[line-malformed]"]);
    assert!(bad.stdout.contains("-> default"));
}

#[test]
fn an_expectation_fails_with_exit_code_1() {
    let test = |stream| {
        run(&["routes", "test", "--routes", EXAMPLE, "--header", "type=order.placed", "--expect", stream])
    };
    test("orders").succeeds();
    assert_eq!(test("clicks").code, Some(1));
}

#[test]
fn simulated_records_can_be_tested() {
    let made = run(&["simulate", "--dry-run", "--count", "50", "--seed", "1"]).succeeds();
    let ran = run_with(&["routes", "test", "--routes", EXAMPLE, "--json"], made.stdout).succeeds();
    assert_eq!(ran.json().len(), 50);
}

#[test]
fn key_payload_and_creation_are_explained_too() {
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.toml");
    let table = "[derive]\ntype = \"/kind\"\n\
                 [[rules]]\nname = \"large\"\nwhen.type = \"order\"\nexpr = \"payload.total > 100 && key == 's-1'\"\nto = \"large\"\n\
                 [[rules]]\nname = \"all\"\nsample = 0.999999\nto = \"sampled\"\n\
                 [default]\nto = \"rest\"\n";
    std::fs::write(&routes, table).unwrap();
    let routes = routes.to_str().unwrap();
    let test = |arguments: &[&str]| run(&[&["routes", "test", "--routes", routes], arguments].concat());

    let large = "{\"kind\":\"order\",\"total\":101}";
    let ran = test(&["--data", large, "--key", "s-1"]).succeeds();
    assert!(ran.stdout.contains("type=\"order\" (derived)"), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("yes payload.total > 100") && ran.stdout.contains("-> large"),
        "{}",
        ran.stdout
    );
    test(&["--data", large, "--key", "s-1", "--expect", "large"]).succeeds();
    test(&["--data", large, "--key", "s-2", "--expect", "rest"]).succeeds();
    let context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    test(&["--data", "{}", "--traceparent", context, "--expect", "sampled"]).succeeds();

    let file = folder.path().join("payload.json");
    std::fs::write(&file, large).unwrap();
    let file = format!("@{}", file.display());
    let ran = test(&["--data", &file, "--key", "s-1", "--json"]).succeeds().json();
    assert_eq!((&ran[0]["derived"][0], &ran[0]["key"]), (&"type".into(), &"s-1".into()));
    assert_eq!(ran[0]["destinations"][0]["stream"], "large");

    let lines = format!(
        "{{\"key\":\"s-1\",\"headers\":{{}},\"data\":{large}}}\n{{\"data\":[],\"key\":\"k\",\"traceparent\":\"{context}\"}}\n"
    );
    let ran = run_with(&["routes", "test", "--routes", routes, "--json"], lines).succeeds().json();
    let streams: Vec<_> = ran.iter().map(|line| line["destinations"][0]["stream"].to_string()).collect();
    assert_eq!(streams, ["\"large\"", "\"sampled\""]);

    test(&["--data", "@/no/such/file"]).fails(3, &["/no/such/file", "[input-unreadable]"]);
    test(&["--traceparent", "x"]).fails(2, &["[creation-context-invalid]"]);
}

#[test]
fn a_table_is_checked() {
    let ran = run(&["routes", "check", EXAMPLE]).succeeds();
    assert!(ran.stdout.contains("orders, payments, clicks, default"), "{}", ran.stdout);
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.toml");
    std::fs::write(&bad, "[[rules]]\nwhen.type = \"a\"\n").unwrap();
    let bad = bad.to_str().unwrap();
    run(&["routes", "check", bad]).fails(1, &["bad.toml", "line", "[route-table-"]);
    run(&["routes", "test", "--routes", bad, "--header", "a=b"]).fails(2, &["bad.toml", "[route-table-"]);
    run(&["routes", "check", "/no/such.toml"]).fails(3, &["/no/such.toml", "[route-table-unreadable]"]);
}
