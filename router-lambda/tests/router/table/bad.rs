//! Tables that are refused, with line, reason and remedy.

use headworks_router::table::{Error, RouteTable};

#[test]
fn bad_tables_are_refused_with_line_reason_and_remedy() {
    let default = "[default]\nto = \"d\"\n";
    for (text, line, says) in [
        ("mode = \"some\"\n", 1, "all-matches"),
        ("\n\nrulez = 1\n", 3, "rulez"),
        ("rules = [\n", 1, ""),
        ("[[rules]]\nwhen.type = \"a\"\nto = \"s\"\n", 1, "add [default]"),
        ("\n[[rules]]\nwhen.type.like = \"a\"\nto = \"s\"\n", 3, "like"),
        ("\n[[rules]]\nwhen.type.glob = \"\"\nto = \"s\"\n", 2, "the glob \"\" is refused: it is empty"),
        ("\n[[rules]]\nwhen.type.prefix = \"\"\nto = \"s\"\n", 2, "use exists = true"),
        ("\n[[rules]]\nwhen.type.one-of = []\nto = \"s\"\n", 2, "never holds"),
        ("\n[[rules]]\nwhen.type.one-of = [\"a\", \"a\"]\nto = \"s\"\n", 2, "\"a\" twice"),
        ("\n[[rules]]\nwhen.type = {}\nto = \"s\"\n", 2, "the condition is empty"),
        ("\n[[rules]]\nwhen.type = { exists = false, equals = \"a\" }\nto = \"s\"\n", 2, "contradicts"),
        ("\n[[rules]]\nwhen.Type = \"a\"\nto = \"s\"\n", 2, "for example to \"type\""),
        ("\n[[rules]]\nwhen.hw-t = \"a\"\nto = \"s\"\n", 2, "reserved"),
        ("\n[[rules]]\nwhen.type = \"a\"\n", 2, "it names no destination"),
        ("\n[[rules]]\nwhen.type = \"a\"\nto = \"s\"\ndrop = true\n", 2, "remove drop = true"),
        ("\n[[rules]]\nwhen.type = \"a\"\nto = \"s\"\ndead-letter = true\n", 2, "remove dead-letter = true"),
        ("\n[[rules]]\nwhen.type = \"a\"\ndrop = true\ndead-letter = true\n", 2, "what else to do"),
        ("\n[[rules]]\nwhen.type = \"a\"\nrename.a = \"b\"\ndrop = true\n", 2, "what else to do"),
        ("\n[[rules]]\nsample = 0\nto = \"s\"\n", 2, "sample = 0 is no share"),
        ("\n[[rules]]\nsample = 1.5\nto = \"s\"\n", 2, "above 0 and up to 1"),
        ("\n[[rules]]\nsample = nan\nto = \"s\"\n", 2, "sample = NaN"),
        ("[[rules]]\nsample = 1\nto = \"s\"\n[[rules]]\nto = \"s\"\n", 4, "it is never reached"),
        ("\n[[rules]]\nto = \"s\"\nrename.a = \"a\"\n", 2, "to the name that it has"),
        (
            "\n[[rules]]\nto = \"s\"\nrename.a = \"c\"\nrename.b = \"c\"\n",
            2,
            "two headers are renamed to \"c\"",
        ),
        ("\n[[rules]]\nto = \"s\"\nrename.a = \"c\"\nset.c = \"c\"\n", 2, "and set or removed as well"),
        ("\n[[rules]]\nto = \"s\"\nrename.a = \"c\"\nremove = \"a\"\n", 2, "and set or removed as well"),
        ("\n[[rules]]\nto = \"s\"\nrename.a = \"hw-c\"\n", 2, "reserved"),
        ("\n[[rules]]\nto = \"s\"\npayload = {}\n", 2, "payload is empty"),
        ("\n[[rules]]\nto = \"s\"\npayload.keep = \"a\"\n", 2, "does not begin with \"/\""),
        (
            "\n[[rules]]\nto = \"s\"\npayload.keep = \"/a\"\npayload.drop = \"/b\"\n",
            2,
            "both keeps and drops",
        ),
        ("\n[[rules]]\nto = \"s\"\npayload.drop = [\"/a/b\", \"/a\"]\n", 2, "lies within the other"),
        (
            "\n[[rules]]\nto = \"s\"\npayload.drop = \"/a\"\npayload.rename.\"/a/b\" = \"c\"\n",
            2,
            "it is not kept",
        ),
        (
            "\n[[rules]]\nto = \"s\"\npayload.keep = \"/a\"\npayload.rename.\"/b\" = \"c\"\n",
            2,
            "it is not kept",
        ),
        (
            "\n[[rules]]\nto = \"s\"\npayload.rename = { \"/a\" = \"c\", \"/b\" = \"c\" }\n",
            2,
            "two fields of one object",
        ),
        ("\n[[rules]]\nto = \"s\"\npayload.rename.\"/a/c\" = \"c\"\n", 2, "to the name that it has"),
        ("\n[[rules]]\nto = \"s\"\nspill-after = \"5\"\n", 2, "spill-after is \"5\""),
        ("\n[[rules]]\ndrop = true\nspill-after = \"5m\"\n", 2, "what else to do"),
        (
            "\n[[rules]]\nexpr = \"ky == 'a'\"\nto = \"s\"\n",
            2,
            "an expression knows headers, key and payload",
        ),
        ("\n[[rules]]\nexpr = \"\"\nto = \"s\"\n", 2, "its expression is not understood"),
        (
            "\n[[rules]]\nto = \"s\"\nenrich = { table = \"ab\", key = \"k\", key-from = \"h\", attributes = { a = \"b\" } }\n",
            2,
            "is no table's name",
        ),
        (
            "\n[[rules]]\nto = \"s\"\nenrich = { table = \"abc\", key = \"k\", key-from = \"/~\", attributes = { a = \"b\" } }\n",
            2,
            "the JSON pointer",
        ),
        (
            "\n[[rules]]\nto = \"s\"\nenrich = { table = \"abc\", key = \"k\", key-from = \"h\", attributes = { a = \"hw-b\" } }\n",
            2,
            "reserved",
        ),
        (
            "\n[[rules]]\nto = \"s\"\nenrich = { table = \"abc\", key = \"k\", key-from = \"h\", attributes = { a = \"b\" }, timeout = \"1h\" }\n",
            2,
            "give from 10ms to 10s",
        ),
        ("\n\n[derive]\nType = \"/a\"\n", 3, "for example to \"type\""),
        ("\n\n[derive]\ntype = \"/~a\"\n", 3, "neither 0 nor 1"),
        ("\n[[rules]]\nwhen.type = \"a\"\nto = \"s p\"\n", 2, "\"s p\" is no stream name"),
        ("\n[[rules]]\nwhen.type = \"a\"\nto = [\"s\", \"s\"]\n", 2, "\"s\" twice"),
        ("\n[[rules]]\nwhen.type = \"a\"\nto = \"s\"\nset.hw-x = \"1\"\n", 2, "reserved"),
        (
            "\n[[rules]]\nwhen.type = \"a\"\nto = \"s\"\nset.x = \"1\"\nremove = [\"x\"]\n",
            2,
            "both set and removed",
        ),
        (
            "[[rules]]\nto = \"s\"\n\n[[rules]]\nname = \"late\"\nto = \"s\"\n",
            4,
            "rule 2 \"late\": it is never reached",
        ),
    ] {
        let text = if says == "add [default]" || says.is_empty() {
            text.to_owned()
        } else {
            format!("{text}{default}")
        };
        let error = RouteTable::from_toml(&text).unwrap_err();
        assert_eq!(error.line(), Some(line), "{text}: {error}");
        assert!(error.to_string().contains(says), "{text}: {error}");
        assert!(error.to_string().starts_with(&format!("the route table, line {line}")), "{error}");
    }
    let error = RouteTable::from_json(
        "{\n \"rules\": [\n  {\"to\": \"s\"},\n  {\"to\": \"s\"}],\n\"default\": {\"to\": \"d\"}}",
    );
    assert_eq!(error.unwrap_err().line(), Some(4));
    let error = RouteTable::from_json("{\n \"rulez\": []}").unwrap_err();
    assert!(
        matches!(&error, Error::Syntax { line: 2, reason, .. } if reason.contains("rulez") && !reason.contains("line")),
        "{error}"
    );
    let error =
        RouteTable::from_json(r#"{"rules": [{"when": {"a": "1", "a": "2"}, "to": "s"}]}"#).unwrap_err();
    assert!(error.to_string().contains("\"a\" stands here twice"), "{error}");
    assert_eq!(RouteTable::load("/nowhere/routes.toml").unwrap_err().code(), "route-table-unreadable");
    assert_eq!(RouteTable::load("routes.yaml").unwrap_err().code(), "route-table-format-unknown");
}

#[test]
fn one_record_never_goes_to_one_stream_in_two_forms() {
    let table = |first: &str, second: &str| {
        RouteTable::from_toml(&format!(
            "mode = \"all-matches\"\n[[rules]]\n{first}\nto = \"s\"\nset.x = \"1\"\n[[rules]]\n{second}\nto = \"s\"\n[default]\nto = \"d\"\n"
        ))
    };
    for (first, second) in [
        ("when.a = \"1\"", "when.b = \"1\""),
        ("when.a.prefix = \"x\"", "when.a.glob = \"x*\""),
        ("when.a.glob = \"*x\"", "when.a.glob = \"y*\""),
        ("when.a.not.equals = \"1\"", "when.a.not.equals = \"2\""),
        ("", "when.a = \"1\""),
    ] {
        let error = table(first, second).unwrap_err();
        assert_eq!(error.line(), Some(6), "{error}");
        assert!(error.to_string().contains("line 2 may match the same record"), "{error}");
        assert!(error.to_string().contains("first-match"), "{error}");
    }
    for (first, second) in [
        ("when.a = \"1\"", "when.a = \"2\""),
        ("when.a.one-of = [\"1\", \"2\"]", "when.a.glob = \"3*\""),
        ("when.a.prefix = \"order.\"", "when.a.glob = \"payment.*\""),
        ("when.a.exists = false", "when.a.prefix = \"x\""),
        ("when.a.glob = \"x*\"", "when.a.not.glob = \"x*\""),
        ("when.a = { prefix = \"x\", not = { equals = \"xy\" } }", "when.a = \"xy\""),
    ] {
        assert!(table(first, second).is_ok(), "{first} {second}");
    }
}
