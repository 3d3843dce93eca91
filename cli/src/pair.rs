//! `name=value` on the command line.

use std::str::FromStr;

use headworks_record::Headers;

use crate::exit::Failure;

/// A header's name and value, split at the first `=`. The value may be empty, the name not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Before the `=`.
    pub name: String,
    /// Behind it.
    pub value: String,
}

impl FromStr for Pair {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let shown: String = text.chars().take(80).collect();
        let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
            Failure::usage(
                "header-argument-invalid",
                format_args!("the header {shown:?} is not name=value; write for example type=order.placed"),
            )
        })?;
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

/// A header that a record may have: a [`Pair`] whose name and value are within the limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header(pub Pair);

impl FromStr for Header {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let pair: Pair = text.parse()?;
        Headers::new().set(pair.name.as_str(), pair.value.as_str())?;
        Ok(Self(pair))
    }
}

/// Headers of these names and values; a name that stands twice is refused.
pub(crate) fn headers(pairs: &[Header]) -> Result<Headers, Failure> {
    let mut headers = Headers::new();
    for Header(Pair { name, value }) in pairs {
        if headers.get(name).is_some() {
            return Err(Failure::usage(
                "header-repeated",
                format_args!(
                    "the header {name:?} is given twice; a record has each header at most once: give it once"
                ),
            ));
        }
        headers.set(name.as_str(), value.as_str())?;
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_split_at_the_first_equals_sign() {
        assert_eq!("a=b=c".parse::<Pair>().unwrap(), Pair { name: "a".into(), value: "b=c".into() });
        assert_eq!("a=".parse::<Pair>().unwrap().value, "");
        for bad in ["", "a", "=b"] {
            assert_eq!(bad.parse::<Pair>().unwrap_err().code(), "header-argument-invalid", "{bad}");
        }
    }

    #[test]
    fn headers_are_within_the_limits_of_records() {
        assert_eq!("Type=x".parse::<Header>().unwrap_err().code(), "header-name-invalid");
        assert_eq!("hw-t=x".parse::<Header>().unwrap_err().code(), "header-name-reserved");
        let long = format!("a={}", "x".repeat(2049));
        assert_eq!(long.parse::<Header>().unwrap_err().code(), "header-value-too-long");
        let twice: Vec<Header> = ["a=1", "a=2"].map(|h| h.parse().unwrap()).into();
        assert_eq!(headers(&twice).unwrap_err().code(), "header-repeated");
        assert_eq!(headers(&twice[..1]).unwrap().get("a"), Some("1"));
    }
}
