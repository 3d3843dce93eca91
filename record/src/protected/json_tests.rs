use proptest::prelude::*;

use super::json::{NotJson, Step, Visitor, scan, unquote};

struct Nothing;

impl Visitor<'_> for Nothing {
    fn value(&mut self, _: &[Step<'_>], _: std::ops::Range<usize>) {}
}

fn is_json(text: &[u8]) -> bool {
    scan(text, &mut Nothing).is_ok()
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(is_json(nested(128).as_bytes()));
    assert_eq!(scan(nested(129).as_bytes(), &mut Nothing), Err(NotJson(129)));
    assert!(!is_json("[".repeat(1 << 20).as_bytes()));
}

#[test]
fn strings_are_read_as_a_parser_reads_them() {
    assert_eq!(unquote(br#""a\u00e9\ud83d\ude00\n""#).unwrap(), "aé😀\n");
    assert_eq!(unquote(br#""a" "#), None);
    assert_eq!(unquote(b"1"), None);
    assert_eq!(unquote(br#""\ud83d\u0041""#), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn it_takes_what_a_parser_takes(
        parts in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"a\"", "\"", "\\", "\\u00e9", "\\ud800", "\"\\u0041\"", "1", "0", "-", ".", "e", "+",
            "1.5", "-0", "01", "1e5", "true", "false", "null", "nul", " ", "\n", "\t", "\u{1}", "é", "{\"a\":1}", "[1,2]",
        ]), 0..12),
    ) {
        let text = parts.concat();
        // Numbers beyond any float are JSON all the same.
        let parsed = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
        let strict = serde_json::from_str::<serde_json::Value>(&text);
        let wanted = parsed && strict.as_ref().map_or_else(|error| error.to_string().contains("out of range"), |_| true);
        prop_assert_eq!(is_json(text.as_bytes()), wanted, "{}", text);
    }

    #[test]
    fn it_takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let json = serde_json::from_slice::<serde_json::Value>(&bytes).is_ok();
        prop_assert_eq!(is_json(&bytes), json);
    }
}
