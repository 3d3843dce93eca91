//! What rules change on the way: headers, payloads, and headers that come from payloads.

use bytes::Bytes;
use headworks_record::Headers;
use headworks_router::table::{RouteTable, route};

use super::headers;

#[test]
fn transforms_change_headers() {
    let table = RouteTable::from_json(
        r#"{"rules": [{"when": {"type": "a"}, "to": "s", "set": {"team": "x"}, "remove": "debug"}],
            "default": {"to": "d"}}"#,
    )
    .unwrap();
    let mut headers = headers(&[("type", "a"), ("debug", "1"), ("team", "y")]);
    let destination = route(&headers, &table).iter().next().unwrap();
    assert!(!destination.transform.is_identity());
    destination.transform.apply(&mut headers, &mut Bytes::new()).unwrap();
    assert_eq!(headers.iter().collect::<Vec<_>>(), [("type", "a"), ("team", "x")]);
}

#[test]
fn headers_are_renamed_all_at_once() {
    let table = RouteTable::from_toml(
        "[default]\nto = \"d\"\nremove = \"x\"\nset.z = \"1\"\nrename = { a = \"b\", b = \"a\", c = \"e\", f = \"g\" }\n",
    )
    .unwrap();
    let mut headers = headers(&[("e", "old"), ("a", "1"), ("b", "2"), ("c", "3"), ("g", "4"), ("x", "5")]);
    let destination = route(&headers, &table).iter().next().unwrap();
    destination.transform.apply(&mut headers, &mut Bytes::new()).unwrap();
    let mut pairs: Vec<_> = headers.iter().collect();
    pairs.sort();
    assert_eq!(pairs, [("a", "2"), ("b", "1"), ("e", "3"), ("g", "4"), ("z", "1")]);
}

#[test]
fn headers_come_from_the_payload_where_the_producer_set_none() {
    let table = RouteTable::from_toml(
        r#"
        [derive]
        type = "/event/type"
        first = "/list/0"
        big = "/big"
        none = "/event"
        [[rules]]
        when.type = "a"
        to = "a"
        [default]
        to = "d"
        "#,
    )
    .unwrap();
    let derive = |given: &[(&str, &str)], data: &[u8]| {
        let mut headers = headers(given);
        table.derive(&mut headers, data).map(|()| {
            let pairs = headers.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" ");
            (pairs, route(&headers, &table).streams().next().unwrap())
        })
    };
    let data = br#"{"event": {"type": "a"}, "list": [true], "big": 12345678901234567890123.0}"#;
    assert_eq!(
        derive(&[], data).unwrap(),
        ("big=12345678901234567890123.0 first=true type=a".to_owned(), "a")
    );
    assert_eq!(derive(&[("type", "b")], data).unwrap().1, "d", "the producer's header stands");
    for data in [&b""[..], b"\xff{", b"{\"event\":{\"type\":\"a\"}", b"\"a\"", b"[]", b"null"] {
        assert_eq!(derive(&[], data).unwrap(), (String::new(), "d"));
    }
    let long = format!(r#"{{"event":{{"type":"{}"}}}}"#, "x".repeat(3000));
    assert_eq!(derive(&[], long.as_bytes()).unwrap_err().code(), "header-value-too-long");
}

#[test]
fn a_payload_that_cannot_be_changed_is_refused() {
    let table = RouteTable::from_toml("[default]\nto = \"d\"\npayload.drop = \"/secret\"\n").unwrap();
    let transform = &route(&Headers::new(), &table).iter().next().unwrap().transform;
    for data in [&b"secret"[..], b"[{\"secret\":1}]", b"{\"secret\":1} x", b""] {
        let mut bytes = Bytes::from_static(data);
        let error = transform.apply(&mut Headers::new(), &mut bytes).unwrap_err();
        assert_eq!((error.code(), &bytes[..]), ("payload-not-an-object", data));
    }
}
