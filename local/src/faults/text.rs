//! Faults as text, for command lines.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::error::FaultError;
use super::fault::{Action, Fault, Service, When};

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        parse(text)
    }
}

pub(crate) fn parse(text: &str) -> Result<Fault, FaultError> {
    let refuse = |reason: String| FaultError { fault: text.to_owned(), reason };
    let fault = read(text).map_err(refuse)?;
    fault.validate().map_err(refuse)?;
    Ok(fault)
}

fn read(text: &str) -> Result<Fault, String> {
    let mut words = text.split_whitespace();
    let (Some(place), Some(action)) = (words.next(), words.next()) else {
        return Err("write an operation and an action, such as put-records throttle".to_owned());
    };
    let (service, operations) = match place.split_once(':') {
        None => (Service::Kinesis, place),
        Some(("kinesis", operations)) => (Service::Kinesis, operations),
        Some(("dynamodb", operations)) => (Service::DynamoDb, operations),
        Some(("s3", operations)) => (Service::S3, operations),
        Some((other, _)) => return Err(format!("{other:?} is no service: kinesis, dynamodb or s3")),
    };
    let mut fault = Fault::of(service, read_action(action)?);
    if operations != "any" {
        fault = fault.operations(operations.split(',').map(pascal));
    }
    let (mut p, mut seed, mut after) = (None, None, false);
    for word in words {
        let Some((name, value)) = word.split_once('=') else {
            return Err(format!("{word:?} is no condition: write name=value"));
        };
        match name {
            "stream" | "table" | "bucket" => fault.resource = Some(value.to_owned()),
            "shard" => fault.shard = Some(value.to_owned()),
            "key" => fault.key = Some(value.to_owned()),
            "n" => fault.when = When::Nth(number(name, value)?),
            "every" => fault.when = When::Every(number(name, value)?),
            "times" => fault.times = Some(number(name, value)?),
            "seed" => seed = Some(number(name, value)?),
            "p" => p = Some(number(name, value)?),
            "status" => match &mut fault.action {
                Action::Error { status, .. } => *status = Some(number(name, value)?),
                _ => return Err("status= is only for error=".to_owned()),
            },
            "after" if value == "commit" => after = true,
            "after" => return Err(format!("after is {value:?}: only after=commit is known")),
            _ => {
                return Err(format!(
                    "{name:?} is no condition: stream, table, bucket, shard, key, n, every, p, seed, times, status \
                     or after"
                ));
            }
        }
    }
    match (p, seed) {
        (Some(_), _) if fault.when != When::Always => {
            return Err("p does not go with n or every: choose one".to_owned());
        }
        (Some(p), seed) => {
            fault.when = When::Probability { p, seed: seed.unwrap_or_else(rand::random::<u64>) };
        }
        (None, Some(_)) => return Err("seed goes with p only".to_owned()),
        (None, None) => {}
    }
    if after {
        fault.action = match fault.action {
            Action::Error { code, status } => Action::ErrorAfterCommit { code, status },
            Action::Delay(time) => Action::DelayAfterCommit(time),
            _ => return Err("after=commit is only for error= and delay=".to_owned()),
        };
    }
    Ok(fault)
}

fn read_action(word: &str) -> Result<Action, String> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    Ok(match (name, value) {
        ("throttle", None) => Action::Throttle,
        ("throttle-call", None) => Action::ThrottleCall,
        ("error", Some(code)) => Action::Error { code: code.to_owned(), status: None },
        ("delay", Some(time)) => Action::Delay(duration(time)?),
        ("lost", None) => Action::Lost,
        ("duplicate", None) => Action::Duplicate,
        ("reset", None) => Action::Reset,
        ("stall", None) => Action::Stall,
        ("expire-iterator", None) => Action::ExpireIterator,
        ("outage", None) => Action::Outage,
        _ => {
            return Err(format!(
                "{word:?} is no action: throttle, throttle-call, error=CODE, delay=TIME, lost, duplicate, reset, \
                 stall, expire-iterator or outage"
            ));
        }
    })
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name} is {value:?}: write a number"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: write 200ms, 2s or 1m");
    let unit = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let count: u64 = text[..unit].parse().map_err(|_| wrong())?;
    let unit_ms = match &text[unit..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err(wrong()),
    };
    // More than a day is a mistake, and would not fit an instant some day.
    match count.checked_mul(unit_ms) {
        Some(ms) if ms <= 86_400_000 => Ok(Duration::from_millis(ms)),
        _ => Err(format!("{text:?} is too long: at most a day")),
    }
}

/// `put-records` as `PutRecords`; names in that form stay.
fn pascal(name: &str) -> String {
    name.split('-')
        .flat_map(|word| {
            let mut letters = word.chars();
            letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters)
        })
        .collect()
}

/// The text that [`Fault::parse`] reads.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.service {
            Service::Kinesis => "",
            Service::DynamoDb => "dynamodb:",
            Service::S3 => "s3:",
        })?;
        f.write_str(if self.operations.is_empty() { "any" } else { "" })?;
        f.write_str(&self.operations.join(","))?;
        match &self.action {
            Action::Throttle => f.write_str(" throttle")?,
            Action::ThrottleCall => f.write_str(" throttle-call")?,
            Action::Error { code, .. } | Action::ErrorAfterCommit { code, .. } => write!(f, " error={code}")?,
            Action::Delay(time) | Action::DelayAfterCommit(time) => {
                write!(f, " delay={}ms", time.as_millis())?;
            }
            Action::Lost => f.write_str(" lost")?,
            Action::Duplicate => f.write_str(" duplicate")?,
            Action::Reset => f.write_str(" reset")?,
            Action::Stall => f.write_str(" stall")?,
            Action::ExpireIterator => f.write_str(" expire-iterator")?,
            Action::Outage => f.write_str(" outage")?,
        }
        if let Action::Error { status: Some(status), .. }
        | Action::ErrorAfterCommit { status: Some(status), .. } = &self.action
        {
            write!(f, " status={status}")?;
        }
        if matches!(self.action, Action::ErrorAfterCommit { .. } | Action::DelayAfterCommit(_)) {
            f.write_str(" after=commit")?;
        }
        if let Some(resource) = &self.resource {
            let name = match self.service {
                Service::Kinesis => "stream",
                Service::DynamoDb => "table",
                Service::S3 => "bucket",
            };
            write!(f, " {name}={resource}")?;
        }
        if let Some(shard) = &self.shard {
            write!(f, " shard={shard}")?;
        }
        if let Some(key) = &self.key {
            write!(f, " key={key}")?;
        }
        match self.when {
            When::Always => {}
            When::Nth(n) => write!(f, " n={n}")?,
            When::Every(n) => write!(f, " every={n}")?,
            When::Probability { p, seed } => write!(f, " p={p} seed={seed}")?,
        }
        match self.times {
            Some(times) => write!(f, " times={times}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_and_written_again() {
        for text in [
            "PutRecords throttle p=0.05 seed=7",
            "PutRecord,PutRecords error=InternalFailure status=503 after=commit key=user n=3",
            "SubscribeToShard stall stream=s shard=shardId-000000000001 every=2 times=1",
            "any outage stream=s shard=shardId-000000000000",
            "dynamodb:UpdateItem delay=2000ms after=commit table=leases",
            "s3:PutObject error=AccessDenied bucket=b",
            "GetRecords expire-iterator",
        ] {
            let fault = Fault::parse(text).unwrap();
            assert_eq!(fault.to_string(), text);
            assert_eq!(Fault::parse(&fault.to_string()).unwrap(), fault);
        }
        let fault = Fault::parse("put-records,list-shards delay=2s").unwrap();
        assert_eq!(fault.operations, ["PutRecords", "ListShards"]);
        assert_eq!(fault.action, Action::Delay(Duration::from_secs(2)));
        let chosen = Fault::parse("any throttle p=0.5").unwrap();
        assert_eq!(Fault::parse(&chosen.to_string()).unwrap(), chosen, "a seed that was chosen is shown");
    }

    #[test]
    fn bad_text_is_refused_with_what_it_may_be() {
        for (text, reason) in [
            ("", "write an operation and an action"),
            ("put-records", "write an operation and an action"),
            ("put-recrods throttle", "\"PutRecrods\" is no operation here"),
            ("sqs:any throttle", "kinesis, dynamodb or s3"),
            ("any explode", "is no action: throttle"),
            ("any delay=2", "write 200ms, 2s or 1m"),
            ("any delay=2d", "write 200ms, 2s or 1m"),
            ("any delay=25000m", "at most a day"),
            ("any throttle p=1.5", "from 0 to 1"),
            ("any throttle p=NaN", "from 0 to 1"),
            ("any throttle n=0", "counted from 1"),
            ("any throttle n=x", "write a number"),
            ("any throttle seed=1", "seed goes with p only"),
            ("any throttle n=1 p=0.5", "choose one"),
            ("any throttle now", "write name=value"),
            ("any throttle shards=1", "is no condition: stream"),
            ("any lost after=commit", "only for error= and delay="),
            ("any lost status=500", "only for error="),
            ("any error=X status=200", "from 400 to 599"),
            ("any error=a/b", "letters and digits"),
            ("any stall", "only for SubscribeToShard"),
            ("any expire-iterator", "only for GetRecords"),
            ("any outage", "name it with shard="),
            ("s3:any duplicate", "nothing twice"),
            ("s3:any throttle shard=x", "only Kinesis has shards"),
        ] {
            let error = Fault::parse(text).unwrap_err();
            assert!(error.to_string().contains(reason), "{text}: {error}");
        }
    }
}
