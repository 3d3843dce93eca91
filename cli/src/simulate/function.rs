//! The functions of templates.

use std::fmt::Write as _;

use super::cursor::{Cursor, Mistake};
use super::dice::Dice;
use super::template::{Known, Scene, dotted};
use super::words;

/// The functions, for the help.
pub(crate) const HELP: &str = "\
Functions of templates, written {{name}} or {{name(arguments)}}; arguments are bare words or quoted:
  uuid                  a random UUID, version 4
  int(a,b)              a whole number from a to b
  float(a,b[,digits])   a number from a to b with that many decimals (2)
  bool, bool(p)         true with probability p (0.5)
  choice(a,b,...)       one of the values
  weighted(a:3,b:1,...) one of the values, as often as its weight says
  seq, seq(from[,step]) the record's number, from 0
  hex(n)                n random hexadecimal digits
  now, now(s), iso_now  when the record is due: milliseconds or seconds since 1970, or RFC 3339
  name, first_name, last_name, email, word, words(n)
  key, k                the record's key; the number of its key, from 1 to --keys
  header(name)          the value of a header that --header sets
  \"text\"                the text itself, for a literal {{";

/// One parsed call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Function {
    Text(String),
    Uuid,
    Int(i64, i64),
    Float(f64, f64, usize),
    Bool(f64),
    Choice(Vec<String>),
    Weighted(Vec<(String, f64)>),
    Seq(i64, i64),
    Hex(usize),
    NowMs,
    NowS,
    IsoNow,
    FirstName,
    LastName,
    Name,
    Email,
    Words(usize),
    Key,
    KeyNumber,
    Header(String),
}

impl Function {
    /// Parses a call that begins at `at`, behind the opening braces; returns where the text goes on behind
    /// the closing ones.
    pub(super) fn parse(text: &str, at: usize, known: Known<'_>) -> Result<(Self, usize), Mistake> {
        let mut cursor = Cursor { text, at };
        cursor.space();
        let start = cursor.at;
        if let Some(literal) = cursor.quoted()? {
            return Ok((Function::Text(literal), cursor.close()?));
        }
        let name = cursor.name();
        if name.is_empty() {
            return Err((start, "the braces are empty; name a function, for example {{uuid}}".to_owned()));
        }
        let arguments = cursor.arguments()?;
        let end = cursor.close()?;
        Self::of(name, &arguments, known).map(|function| (function, end)).map_err(|reason| (start, reason))
    }

    fn of(name: &str, arguments: &[String], known: Known<'_>) -> Result<Self, String> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let usage = |form: &str| Err(format!("{name} is written {form}"));
        Ok(match (name, &*arguments) {
            ("uuid", []) => Function::Uuid,
            ("int", [low, high]) => {
                let (low, high) = (whole(low)?, whole(high)?);
                if low > high {
                    return Err(format!("int({low},{high}): the lowest number comes first"));
                }
                Function::Int(low, high)
            }
            ("float", [low, high, digits @ ..]) if digits.len() < 2 => {
                let (low, high) = (number(low)?, number(high)?);
                if low > high {
                    return Err(format!("float({low},{high}): the lowest number comes first"));
                }
                Function::Float(low, high, digits.first().map_or(Ok(2), |text| count(text, 0, 17))?)
            }
            ("bool", []) => Function::Bool(0.5),
            ("bool", [share]) => {
                let share = number(share)?;
                if !(0.0..=1.0).contains(&share) {
                    return Err(format!("the probability {share} is not from 0 to 1"));
                }
                Function::Bool(share)
            }
            ("choice", [_, ..]) => Function::Choice(arguments.iter().map(ToString::to_string).collect()),
            ("weighted", [_, ..]) => Function::Weighted(weights(&arguments)?),
            ("seq", []) => Function::Seq(0, 1),
            ("seq", [from]) => Function::Seq(whole(from)?, 1),
            ("seq", [from, step]) => Function::Seq(whole(from)?, whole(step)?),
            ("hex", [digits]) => Function::Hex(count(digits, 1, 1024)?),
            ("now", [] | ["ms"]) => Function::NowMs,
            ("now", ["s"]) => Function::NowS,
            ("now", [other]) => return Err(format!("the unit {other:?} is not ms or s")),
            ("iso_now", []) => Function::IsoNow,
            ("first_name", []) => Function::FirstName,
            ("last_name", []) => Function::LastName,
            ("name", []) => Function::Name,
            ("email", []) => Function::Email,
            ("word", []) => Function::Words(1),
            ("words", [many]) => Function::Words(count(many, 1, 1024)?),
            ("key", []) if known.key => Function::Key,
            ("key", []) => {
                return Err("the key cannot refer to itself; use {{k}}, the number of the key".to_owned());
            }
            ("k", []) => Function::KeyNumber,
            ("header", [header]) => {
                if !known.headers.iter().any(|known| known == header) {
                    return Err(format!(
                        "there is no header {header:?} before this; set it with --header {header}=VALUE"
                    ));
                }
                Function::Header((*header).to_owned())
            }
            ("int", _) => return usage("int(lowest, highest)"),
            ("float", _) => return usage("float(lowest, highest) or float(lowest, highest, decimals)"),
            ("bool", _) => return usage("bool or bool(probability)"),
            ("choice", _) => return usage("choice(value, value, ...)"),
            ("weighted", _) => return usage("weighted(value:weight, value:weight, ...)"),
            ("seq", _) => return usage("seq, seq(first) or seq(first, step)"),
            ("hex", _) => return usage("hex(digits)"),
            ("words", _) => return usage("words(number)"),
            ("header", _) => return usage("header(name)"),
            ("now", _) => return usage("now, now(ms) or now(s)"),
            (
                "uuid" | "iso_now" | "first_name" | "last_name" | "name" | "email" | "word" | "key" | "k",
                _,
            ) => {
                return Err(format!("{name} takes no arguments"));
            }
            _ => {
                return Err(format!("there is no function {name:?}; headworks simulate --help lists them"));
            }
        })
    }

    /// Appends the value for one record.
    pub(super) fn write(&self, out: &mut String, scene: &Scene<'_>, dice: &mut Dice) {
        // Writing to a string cannot fail.
        let _ = match self {
            Function::Text(text) => out.write_str(text),
            Function::Uuid => {
                let bits = (u128::from(dice.bits()) << 64) | u128::from(dice.bits());
                write!(out, "{}", uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid())
            }
            Function::Int(low, high) => {
                let span = high.wrapping_sub(*low) as u64;
                let drawn = match span.checked_add(1) {
                    Some(bound) => dice.below(bound),
                    None => dice.bits(),
                };
                write!(out, "{}", low.wrapping_add(drawn as i64))
            }
            Function::Float(low, high, digits) => {
                write!(out, "{:.*}", digits, low + (high - low) * dice.unit())
            }
            Function::Bool(share) => write!(out, "{}", dice.unit() < *share),
            Function::Choice(values) => out.write_str(dice.pick(values).map_or("", String::as_str)),
            Function::Weighted(values) => {
                // The list ends with the sum of all weights.
                let total = values.last().map_or(0.0, |(_, sum)| *sum);
                let drawn = dice.unit() * total;
                out.write_str(values.iter().find(|(_, sum)| drawn < *sum).map_or("", |(value, _)| value))
            }
            Function::Seq(from, step) => {
                write!(out, "{}", i128::from(*from) + i128::from(*step) * i128::from(scene.number))
            }
            Function::Hex(digits) => {
                for _ in 0..*digits {
                    let _ = write!(out, "{:x}", dice.below(16));
                }
                Ok(())
            }
            Function::NowMs => write!(out, "{}", scene.time.as_millisecond()),
            Function::NowS => write!(out, "{}", scene.time.as_second()),
            Function::IsoNow => write!(out, "{:.3}", scene.time),
            Function::FirstName => out.write_str(words::first_name(dice)),
            Function::LastName => out.write_str(words::last_name(dice)),
            Function::Name => write!(out, "{} {}", words::first_name(dice), words::last_name(dice)),
            Function::Email => {
                let (first, last) = (words::first_name(dice), words::last_name(dice));
                dotted(out, first, last);
                Ok(())
            }
            Function::Words(many) => {
                for i in 0..*many {
                    out.push_str(if i == 0 { "" } else { " " });
                    out.push_str(words::word(dice));
                }
                Ok(())
            }
            Function::Key => out.write_str(scene.key),
            Function::KeyNumber => write!(out, "{}", scene.key_number),
            Function::Header(name) => {
                out.write_str(scene.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value))
            }
        };
    }
}

fn whole(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("{text:?} is not a whole number from -2^63 to 2^63 - 1"))
}

fn number(text: &str) -> Result<f64, String> {
    let finite = text.parse().ok().filter(|number: &f64| number.is_finite());
    finite.ok_or_else(|| format!("{text:?} is not a number"))
}

fn count(text: &str, low: usize, high: usize) -> Result<usize, String> {
    let within = text.parse().ok().filter(|count| (low..=high).contains(count));
    within.ok_or_else(|| format!("{text:?} is not a whole number from {low} to {high}"))
}

/// Values with the sum of all weights up to and including their own.
fn weights(arguments: &[&str]) -> Result<Vec<(String, f64)>, String> {
    let mut sum = 0.0;
    let mut values = Vec::new();
    for argument in arguments {
        let (value, weight) = argument.rsplit_once(':').ok_or_else(|| {
            format!("{argument:?} is not value:weight; write for example weighted(view:9, buy:1)")
        })?;
        let weight = number(weight.trim())?;
        if weight < 0.0 {
            return Err(format!("the weight {weight} of {value:?} is below 0"));
        }
        sum += weight;
        values.push((value.trim().to_owned(), sum));
    }
    if sum <= 0.0 || !sum.is_finite() {
        return Err(format!("the weights add up to {sum}; give at least one value a weight above 0"));
    }
    Ok(values)
}
