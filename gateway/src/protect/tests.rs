use std::collections::HashMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use headworks_record::Headers;
use proptest::prelude::*;

use super::{Envelope, Keys, Protection, RevealError, envelopes, reveal};
use crate::config::{Action, Otherwise, ProtectConfig, RuleConfig, When};

const LIMIT: usize = 1 << 20;

struct Files {
    _folder: tempfile::TempDir,
    keys: PathBuf,
}

fn files() -> Files {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.toml");
    let secret = |byte| STANDARD.encode([byte; 32]);
    let text = format!(
        "[[keys]]\nid = \"h\"\nuse = \"hash\"\nsecret = \"{}\"\n[[keys]]\nid = \"e\"\nuse = \"encrypt\"\nsecret = \"{}\"\n",
        secret(1),
        secret(2)
    );
    std::fs::write(&keys, text).unwrap();
    Files { _folder: folder, keys }
}

fn rule(pointer: &str, action: Action) -> RuleConfig {
    let key = match action {
        Action::Drop => None,
        Action::Hash => Some("h".to_owned()),
        Action::Encrypt => Some("e".to_owned()),
    };
    RuleConfig { pointer: pointer.to_owned(), action, key, when: None, missing: Otherwise::Pass }
}

fn protection(rules: Vec<RuleConfig>) -> (Protection, Keys) {
    let files = files();
    let config = ProtectConfig { keys: Some(files.keys.clone()), not_json: Otherwise::Refuse, rules };
    (Protection::load(&config).unwrap(), Keys::load(&files.keys).unwrap())
}

fn apply(rules: Vec<RuleConfig>, text: &str) -> String {
    let done = protection(rules).0.apply(&Headers::new(), Bytes::from(text.to_owned()), LIMIT).unwrap();
    String::from_utf8(done.to_vec()).unwrap()
}

fn drops(pointers: &[&str], text: &str) -> String {
    apply(pointers.iter().map(|pointer| rule(pointer, Action::Drop)).collect(), text)
}

#[test]
fn members_are_dropped_with_one_comma_and_nothing_else() {
    let cases = [
        (&["/a"][..], r#"{"a":1}"#, r#"{}"#),
        (&["/a"], r#"{ "a" : 1 , "b" : 2.50 }"#, r#"{  "b" : 2.50 }"#),
        (&["/b"], r#"{"a":1,"b":2}"#, r#"{"a":1}"#),
        (&["/a", "/b"], r#"{"a":1,"b":2,"c":3}"#, r#"{"c":3}"#),
        (&["/b", "/c"], r#"{"a":1,"b":2,"c":3}"#, r#"{"a":1}"#),
        (&["/a", "/c"], r#"{"a":1,"b":2,"c":3}"#, r#"{"b":2}"#),
        (&["/a", "/b"], r#"{"a":1,"b":2}"#, r#"{}"#),
        // Twice, and in disguise.
        (&["/a"], r#"{"a":1,"b":1e2,"\u0061":3}"#, r#"{"b":1e2}"#),
        (&["/x/a"], r#"{"x":{"a":[{}],"b":0},"a":7}"#, r#"{"x":{"b":0},"a":7}"#),
        (&["/x", "/x/a"], r#"{"x":{"a":1},"y":2}"#, r#"{"y":2}"#),
        (&["/l/*/a"], r#"{"l":[{"a":1,"b":2},{"b":3},{"a":4}]}"#, r#"{"l":[{"b":2},{"b":3},{}]}"#),
        // Places in arrays stay.
        (&["/l/1"], r#"{"l":[1,2,3]}"#, r#"{"l":[1,null,3]}"#),
        (&["/l/01"], r#"{"l":[1,2,3]}"#, r#"{"l":[1,2,3]}"#),
        (&["/a~1b", "/c~0d", "/"], r#"{"a/b":1,"c~d":2,"":3,"e":4}"#, r#"{"e":4}"#),
        (&["/*"], r#"{"*":1,"e":4}"#, r#"{"e":4}"#),
    ];
    for (pointers, before, after) in cases {
        assert_eq!(drops(pointers, before), after, "{pointers:?} {before}");
    }
}

#[test]
fn equal_texts_have_equal_hashes_however_they_are_escaped() {
    let hash = |text: &str| apply(vec![rule("/a", Action::Hash)], text);
    let one = hash(r#"{"a":"x@y.z"}"#);
    assert!(one.starts_with(r#"{"a":"hwhash1:h:"#) && !one.contains("x@y.z"), "{one}");
    assert_eq!(one, hash(r#"{"a":"x\u0040y.\u007a"}"#));
    assert_ne!(one, hash(r#"{"a":"x@y.Z"}"#));
    // A string is never taken for what it spells.
    assert_ne!(hash(r#"{"a":"1"}"#), hash(r#"{"a":1}"#));
    // As computed by another implementation: python3 hmac over b"string\0x@y.z" with 32 bytes of 1.
    assert_eq!(one, r#"{"a":"hwhash1:h:-GtJUGObUCSRZrgtc6JLaOM72MKZq9e1YLHSEa3jnhc"}"#);
}

#[test]
fn what_is_encrypted_is_revealed_byte_for_byte() {
    let (protection, keys) = protection(vec![rule("/a", Action::Encrypt), rule("/l/*/b", Action::Encrypt)]);
    let text = r#"{ "a" : {"x":[1.50, "\u0041"]}, "l":[{"b":"secret"},{"b":null}], "n":1e400 }"#;
    let sealed = protection.apply(&Headers::new(), text.into(), LIMIT).unwrap();
    assert!(!String::from_utf8_lossy(&sealed).contains("secret"));
    assert!(sealed.ends_with(br#", "n":1e400 }"#));
    assert_eq!(reveal(&sealed, &keys).unwrap(), text.as_bytes());
    // The same, with data keys that somebody unwrapped before.
    let found = envelopes(&sealed).unwrap();
    assert_eq!(found.iter().map(Envelope::pointer).collect::<Vec<_>>(), ["/a", "/l/*/b", "/l/*/b"]);
    let unwrapped: HashMap<_, _> = found
        .iter()
        .map(|e| {
            (
                (e.key_id().to_owned(), e.wrapped_key().to_vec()),
                keys.unwrap_data_key("e", e.wrapped_key()).unwrap(),
            )
        })
        .collect();
    assert_eq!(unwrapped.len(), 1);
    assert_eq!(reveal(&sealed, &unwrapped).unwrap(), text.as_bytes());
    let nobody = reveal(&sealed, &Keys::default()).unwrap_err();
    assert_eq!(nobody, RevealError::KeyUnknown { key_id: "e".into(), pointer: "/a".into() });
}

#[test]
fn a_change_is_noticed_wherever_it_is() {
    let (protection, keys) = protection(vec![rule("", Action::Encrypt)]);
    let sealed = protection.apply(&Headers::new(), "\"secret\"".into(), LIMIT).unwrap();
    let text = std::str::from_utf8(&sealed[1..sealed.len() - 1]).unwrap();
    let bytes =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&text[super::SEAL_PREFIX.len()..]).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let changed = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(changed);
        let payload = format!("\"{}{changed}\"", super::SEAL_PREFIX);
        let revealed = reveal(payload.as_bytes(), &keys);
        // What is no envelope any more is left as it is.
        assert!(revealed.is_err() || revealed.unwrap() == payload.as_bytes(), "{at}");
    }
}

#[test]
fn what_cannot_be_protected_is_refused_unless_told() {
    let refuse = |pointer: &str| RuleConfig { missing: Otherwise::Refuse, ..rule(pointer, Action::Hash) };
    let (protection, _) = protection(vec![refuse("/a")]);
    let code =
        |text: &'static [u8]| protection.apply(&Headers::new(), text.into(), LIMIT).map_err(|e| e.code());
    assert_eq!(code(b"{\"b\":1}"), Err("protected-field-missing"));
    for text in
        [&b"plain"[..], b"", b"{\"a\":1", b"{\"a\":1}x", b"{\"a\":\"\xff\"}", b"{\"a\":\"\\ud800\"}", b"[1,]"]
    {
        assert_eq!(code(text), Err("payload-not-json"), "{text:?}");
    }
    let files = files();
    let pass = ProtectConfig {
        keys: Some(files.keys.clone()),
        not_json: Otherwise::Pass,
        rules: vec![rule("/a", Action::Hash)],
    };
    let pass = Protection::load(&pass).unwrap();
    assert_eq!(pass.apply(&Headers::new(), "plain".into(), LIMIT).unwrap(), "plain");
    assert_eq!(pass.apply(&Headers::new(), "{}".into(), LIMIT).unwrap(), "{}");
}

#[test]
fn a_rule_may_concern_some_records_only() {
    let when = When { header: "type".into(), one_of: vec!["order".into()] };
    let (protection, _) = protection(vec![RuleConfig { when: Some(when), ..rule("/a", Action::Drop) }]);
    let mut headers = Headers::new();
    let apply = |headers: &Headers| protection.apply(headers, r#"{"a":1}"#.into(), LIMIT).unwrap();
    assert_eq!(apply(&headers), r#"{"a":1}"#);
    headers.set("type", "click").unwrap();
    assert_eq!(apply(&headers), r#"{"a":1}"#);
    // Nobody looks at it, whatever it is.
    assert_eq!(protection.apply(&headers, "plain".into(), LIMIT).unwrap(), "plain");
    headers.set("type", "order").unwrap();
    assert_eq!(apply(&headers), "{}");
}

#[test]
fn many_small_values_cannot_grow_without_bound() {
    let (protection, _) = protection(vec![rule("/*", Action::Encrypt)]);
    let text = format!("[{}1]", "1,".repeat(50_000));
    let refused = protection.apply(&Headers::new(), text.into(), LIMIT).unwrap_err();
    assert_eq!(refused.code(), "record-too-large");
    // Nor take for ever.
    let (protection, _) =
        super::tests::protection(vec![rule("/a", Action::Drop), rule("/b/a", Action::Drop)]);
    let twice = format!("{{{}\"z\":1}}", "\"a\":1,".repeat(100_000));
    assert_eq!(protection.apply(&Headers::new(), twice.into(), LIMIT).unwrap(), "{\"z\":1}");
}

#[test]
fn files_of_keys_are_checked_and_never_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let long = STANDARD.encode([7; 32]);
    for (text, said) in [
        ("[[keys]]\nid = \"a\"\nuse = \"hash\"\nsecret = \"c2hvcnQ=\"".to_owned(), "at least 32 bytes"),
        ("[[keys]]\nid = \"a\"\nuse = \"encrypt\"\nsecret = \"c2hvcnQ=\"".to_owned(), "has 32 bytes"),
        ("[[keys]]\nid = \"a\"\nuse = \"hash\"\nsecret = \"*c2hvcnQ\"".to_owned(), "not base64"),
        (format!("[[keys]]\nid = \"a:b\"\nuse = \"hash\"\nsecret = \"{long}\""), "1 to 64"),
        (format!("[[keys]]\nid = \"a\"\nuse = \"sign\"\nsecret = \"{long}\""), "not valid at byte"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = Keys::load(&file).unwrap_err();
        let message = format!("{error} {error:?}");
        assert_eq!(error.code(), "protection-keys-invalid");
        assert!(
            message.contains(said) && !message.contains("c2hvcnQ") && !message.contains(&long),
            "{message}"
        );
    }
    let files = files();
    let load = |rule: RuleConfig| {
        let config =
            ProtectConfig { keys: Some(files.keys.clone()), not_json: Otherwise::Refuse, rules: vec![rule] };
        Protection::load(&config).map(|_| ()).map_err(|error| error.to_string())
    };
    let unknown = RuleConfig { key: Some("z".into()), ..rule("/a", Action::Hash) };
    assert!(load(unknown).unwrap_err().contains("not in the file"));
    let wrong = RuleConfig { key: Some("h".into()), ..rule("/a", Action::Encrypt) };
    assert!(load(wrong).unwrap_err().contains("something else"));
    let debug =
        format!("{:?} {:?}", Keys::load(&files.keys).unwrap(), protection(vec![rule("/a", Action::Hash)]).0);
    assert!(!debug.contains(&STANDARD.encode([1; 32])) && debug.contains("\"h\""), "{debug}");
}

fn document() -> impl Strategy<Value = serde_json::Value> {
    let name = || prop::sample::select(vec!["a", "b", "c", "ab", "*", "", "~", "/"]);
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i32>().prop_map(Into::into),
        "[a-z\"\\\\\u{7}é😀]{0,6}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::vec((name(), inner), 0..5).prop_map(|members| {
                serde_json::Value::Object(members.into_iter().map(|(n, v)| (n.to_owned(), v)).collect())
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Against a parser that knows nothing of the splicing.
    #[test]
    fn protection_is_what_it_would_be_on_the_parsed_value(
        value in document(),
        pointer in prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "0", "1", "~1", "~0", ""]), 1..4),
        pretty: bool,
    ) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let pointer: String = pointer.iter().map(|token| format!("/{token}")).collect();

        let dropped = drops(&[&pointer], &text);
        let mut wanted = value.clone();
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        let last = last.replace("~1", "/").replace("~0", "~");
        match wanted.pointer_mut(parent) {
            Some(serde_json::Value::Object(members)) => drop(members.remove(&last)),
            Some(array @ serde_json::Value::Array(_)) => {
                if let Some(element) = array.pointer_mut(&format!("/{last}")) {
                    *element = serde_json::Value::Null;
                }
            }
            _ => {}
        }
        let found: serde_json::Value = serde_json::from_str(&dropped).unwrap();
        prop_assert_eq!(found, wanted);

        let (protection, keys) = protection(vec![rule(&pointer, Action::Encrypt)]);
        let sealed = protection.apply(&Headers::new(), text.clone().into(), LIMIT).unwrap();
        prop_assert_eq!(sealed == text, value.pointer(&pointer).is_none());
        prop_assert_eq!(reveal(&sealed, &keys).unwrap(), text.as_bytes());
    }
}
