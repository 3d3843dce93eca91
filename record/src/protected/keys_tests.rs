use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Envelope, Keys, KeysError, RevealError, SealError, Use, reveal};

fn load(text: &str) -> Result<Keys, KeysError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    std::fs::write(&file, text).unwrap();
    Keys::load(&file)
}

fn entry(id: &str, rest: &str) -> String {
    format!("[[keys]]\nid = \"{id}\"\n{rest}\n")
}

fn kms(name: &str) -> String {
    entry("k", &format!("use = \"encrypt\"\nkms = \"{name}\""))
}

#[test]
fn entries_are_checked_on_both_sides_of_their_bounds() {
    let secret = |use_: &str, bytes: usize| {
        format!("use = \"{use_}\"\nsecret = \"{}\"", STANDARD.encode(vec![7; bytes]))
    };
    for good in [
        entry(&"i".repeat(64), &secret("hash", 32)),
        entry("a_.-Z9", &secret("hash", 100)),
        entry("e", &secret("encrypt", 32)),
        kms(&"n".repeat(2048)),
    ] {
        load(&good).unwrap();
    }
    let both = format!("{}\nkms = \"alias/x\"", secret("encrypt", 32));
    for (bad, said) in [
        (entry(&"i".repeat(65), &secret("hash", 32)), "1 to 64"),
        (entry("", &secret("hash", 32)), "1 to 64"),
        (entry("a", &secret("hash", 31)), "at least 32"),
        (entry("a", &secret("encrypt", 31)), "has 32 bytes"),
        (entry("a", &secret("encrypt", 33)), "has 32 bytes"),
        (entry("a", "use = \"encrypt\""), "either"),
        (entry("a", &both), "either"),
        (entry("a", "use = \"hash\"\nkms = \"alias/x\""), "for encrypting"),
        (kms(""), "1 to 2,048"),
        (kms(&"n".repeat(2049)), "1 to 2,048"),
        (kms("a") + &kms("b"), "twice"),
    ] {
        let error = load(&bad).unwrap_err();
        assert_eq!((error.code(), error.is_retryable()), ("protection-keys-invalid", false));
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn a_service_gives_data_keys_and_new_keys_keep_them() {
    let keys = load(&kms("alias/x")).unwrap();
    let key = keys.get("k").unwrap();
    assert_eq!(key.usage(), Use::Encrypt);
    let refused = key.protect("/a", b"1").unwrap_err();
    assert_eq!(refused, SealError::NoDataKey { id: "k".into() });
    assert_eq!((refused.code(), refused.is_retryable()), ("protection-key-unavailable", true));

    let service = keys.services().next().unwrap();
    assert_eq!((service.id(), service.name()), ("k", "alias/x"));
    assert!(service.is_due() && !service.is_ready());
    service.renew(&[9; 32], b"blob".to_vec()).unwrap();
    assert!(!service.is_due() && service.is_ready());
    let sealed = key.protect("/a", b"[1.50]").unwrap();
    let envelope = Envelope::parse(&sealed).unwrap();
    assert_eq!((envelope.key_id(), envelope.wrapped_key()), ("k", &b"blob"[..]));
    assert_eq!(envelope.open(&[9; 32]).unwrap(), b"[1.50]");

    let payload = format!("{{\"a\": \"{sealed}\"}}");
    let unwrapped = std::collections::HashMap::from([(("k".to_owned(), b"blob".to_vec()), [9; 32])]);
    assert_eq!(reveal(payload.as_bytes(), &unwrapped).unwrap(), br#"{"a": [1.50]}"#);
    assert!(matches!(reveal(payload.as_bytes(), &keys), Err(RevealError::KeyUnknown { .. })));

    let mut same = load(&kms("alias/x")).unwrap();
    same.adopt(&keys);
    assert!(same.get("k").unwrap().protect("/a", b"1").is_ok());
    let mut other = load(&kms("alias/y")).unwrap();
    other.adopt(&keys);
    assert!(other.get("k").unwrap().protect("/a", b"1").is_err());
    let shown = format!("{keys:?} {key:?} {service:?}");
    assert!(shown.contains("alias/x") && !shown.contains("[9"), "{shown}");
}
