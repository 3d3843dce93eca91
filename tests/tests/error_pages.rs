//! Every error code has a page, and every page has a code.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

/// The codes that `fn code` of a source file gives: the string literals in the function's body. Reasons for
/// dead letters are given their code where they arise.
fn codes(source: &str, found: &mut BTreeSet<String>) {
    for reason in source.split("Trouble::poison(\"").skip(1) {
        found.extend(reason.split('"').next().map(str::to_owned));
    }
    for body in source.split("fn code(&self)").skip(1) {
        let end = body.find("\n    }\n").unwrap_or(body.len());
        // Attributes name features, not codes.
        let lines = body[..end].lines().filter(|line| !line.trim_start().starts_with("#["));
        let text = lines.collect::<Vec<_>>().join("\n");
        for literal in text.split('"').skip(1).step_by(2) {
            assert!(
                !literal.is_empty()
                    && literal.bytes().all(|b| b.is_ascii_lowercase() || b == b'-' || b.is_ascii_digit()),
                "{literal:?} is no code"
            );
            found.insert(literal.to_owned());
        }
    }
}

fn walk(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            codes(&std::fs::read_to_string(&path).unwrap(), found);
        }
    }
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let repository = headworks_tests::repository();
    let mut found = BTreeSet::new();
    for crate_ in [
        "record",
        "proto",
        "telemetry",
        "writer",
        "gateway",
        "producer-sdk",
        "consumer-sdk",
        "router-lambda",
        "local",
    ] {
        walk(&repository.join(crate_).join("src"), &mut found);
    }
    let pages: BTreeSet<String> = std::fs::read_dir(repository.join("docs/errors"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().is_some_and(|name| name != "README.md"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let missing: Vec<_> = found.difference(&pages).collect();
    let stale: Vec<_> = pages.difference(&found).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "codes without a page: {missing:?}; pages without a code: {stale:?}"
    );
}
