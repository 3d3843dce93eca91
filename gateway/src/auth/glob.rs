//! Patterns of names and values.

/// Whether the text is what the pattern says; `*` stands for any run of letters, also for none.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last star stands, and what it is taken to cover so far: going back to it alone is enough.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, covered)) = star {
            star = Some((at, covered + 1));
            (p, t) = (at + 1, covered + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_is_any_run_of_letters() {
        for (pattern, text) in
            [("", ""), ("*", ""), ("*", "x"), ("a*", "a"), ("a*c", "abcbc"), ("*.b*", "a.b"), ("ä*", "äö")]
        {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "x"), ("a", ""), ("a*", "ba"), ("a*c", "abcb"), ("a?", "ab"), ("A", "a")]
        {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_take_no_more_than_a_product_of_lengths() {
        let text = "a".repeat(2_000);
        assert!(!matches(&format!("{}b", "a*".repeat(500)), &text));
        assert!(matches(&"a*".repeat(500), &text));
    }
}
