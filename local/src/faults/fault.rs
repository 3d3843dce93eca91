//! One fault: where, when and what.

use std::time::Duration;

use super::error::FaultError;

/// Whose calls go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Service {
    /// Streams.
    Kinesis,
    /// Tables.
    DynamoDb,
    /// Buckets.
    S3,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The service has no capacity: `ProvisionedThroughputExceededException` from Kinesis' calls on records and
    /// from DynamoDB, `LimitExceededException` from Kinesis' other calls, `SlowDown` from S3. In `PutRecords` each
    /// entry is decided for itself.
    Throttle,
    /// As [`Action::Throttle`], but `PutRecords` is refused as a whole.
    ThrottleCall,
    /// The call is refused before anything happens. In `PutRecords`, when the fault names a shard or a key, each
    /// entry that matches is.
    Error {
        /// The exception's name, such as `InternalFailure`.
        code: String,
        /// The HTTP status; `None` takes the one usual for the code.
        status: Option<u16>,
    },
    /// As [`Action::Error`], but everything has happened before the call is refused.
    ErrorAfterCommit {
        /// The exception's name.
        code: String,
        /// The HTTP status; `None` takes the one usual for the code.
        status: Option<u16>,
    },
    /// The call waits before anything happens.
    Delay(Duration),
    /// Everything happens at once; the answer waits.
    DelayAfterCommit(Duration),
    /// Everything happens; then the connection closes without an answer.
    Lost,
    /// Everything happens twice, as when something between client and service repeats a request; the answer is
    /// the second one. Not for S3.
    Duplicate,
    /// The connection closes before anything happens. For `SubscribeToShard`: in the middle of an event.
    Reset,
    /// A subscription falls silent, with its connection open, instead of sending an event. Only for
    /// `SubscribeToShard`.
    Stall,
    /// `ExpiredIteratorException`. Only for `GetRecords`.
    ExpireIterator,
    /// A shard takes and gives nothing: puts, iterators, reads and subscriptions to it are answered with
    /// `InternalFailure`, and subscriptions that run end with it. The fault must name the shard.
    Outage,
}

/// On which of the occasions that match.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum When {
    /// On each.
    Always,
    /// On this one only, counted from 1.
    Nth(u64),
    /// On each whose number, counted from 1, is a multiple of this.
    Every(u64),
    /// On each with this probability, 0 to 1. The same seed gives the same decisions.
    Probability {
        /// How likely.
        p: f64,
        /// Of the decisions.
        seed: u64,
    },
}

/// A fault. An occasion is a call; an entry of a put for faults that decide on entries; an event of a subscription
/// for [`Action::Reset`] and [`Action::Stall`] of `SubscribeToShard`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Fault {
    /// Whose calls.
    pub service: Service,
    /// The operations, as the protocol names them. Empty: every one (for an outage, every one on records).
    pub operations: Vec<String>,
    /// What happens.
    pub action: Action,
    /// The exact name of the stream, table or bucket. `None`: any.
    pub resource: Option<String>,
    /// The exact name of the shard. `None`: any.
    pub shard: Option<String>,
    /// What the partition key contains; for S3 the object's key, for DynamoDB the body of the request. `None`:
    /// any.
    pub key: Option<String>,
    /// On which of the occasions that match.
    pub when: When,
    /// How often at most. `None`: for ever.
    pub times: Option<u64>,
}

const KINESIS: [&str; 39] = [
    "AddTagsToStream",
    "CreateStream",
    "DecreaseStreamRetentionPeriod",
    "DeleteResourcePolicy",
    "DeleteStream",
    "DeregisterStreamConsumer",
    "DescribeAccountSettings",
    "DescribeLimits",
    "DescribeStream",
    "DescribeStreamConsumer",
    "DescribeStreamSummary",
    "DisableEnhancedMonitoring",
    "EnableEnhancedMonitoring",
    "GetRecords",
    "GetResourcePolicy",
    "GetShardIterator",
    "IncreaseStreamRetentionPeriod",
    "ListShards",
    "ListStreamConsumers",
    "ListStreams",
    "ListTagsForResource",
    "ListTagsForStream",
    "MergeShards",
    "PutRecord",
    "PutRecords",
    "PutResourcePolicy",
    "RegisterStreamConsumer",
    "RemoveTagsFromStream",
    "SplitShard",
    "StartStreamEncryption",
    "StopStreamEncryption",
    "SubscribeToShard",
    "TagResource",
    "UntagResource",
    "UpdateAccountSettings",
    "UpdateMaxRecordSize",
    "UpdateShardCount",
    "UpdateStreamMode",
    "UpdateStreamWarmThroughput",
];
const DYNAMODB: [&str; 22] = [
    "BatchExecuteStatement",
    "BatchGetItem",
    "BatchWriteItem",
    "CreateTable",
    "DeleteItem",
    "DeleteTable",
    "DescribeTable",
    "DescribeTimeToLive",
    "ExecuteStatement",
    "ExecuteTransaction",
    "GetItem",
    "ListTables",
    "ListTagsOfResource",
    "PutItem",
    "Query",
    "Scan",
    "TagResource",
    "TransactGetItems",
    "TransactWriteItems",
    "UpdateItem",
    "UpdateTable",
    "UpdateTimeToLive",
];
/// What [`crate::s3`] tells apart; everything else is `Other`.
const S3: [&str; 15] = [
    "AbortMultipartUpload",
    "CompleteMultipartUpload",
    "CreateBucket",
    "CreateMultipartUpload",
    "DeleteBucket",
    "DeleteObject",
    "DeleteObjects",
    "GetObject",
    "HeadBucket",
    "HeadObject",
    "ListBuckets",
    "ListObjects",
    "Other",
    "PutObject",
    "UploadPart",
];
/// The operations on records, which an outage of a shard concerns.
const RECORDS: [&str; 5] = ["PutRecord", "PutRecords", "GetShardIterator", "GetRecords", "SubscribeToShard"];

impl Fault {
    /// A fault of one Kinesis operation, on every call.
    pub fn on(operation: impl Into<String>, action: Action) -> Self {
        Self {
            service: Service::Kinesis,
            operations: vec![operation.into()],
            action,
            resource: None,
            shard: None,
            key: None,
            when: When::Always,
            times: None,
        }
    }

    /// A fault of every operation of a service.
    #[must_use]
    pub fn of(service: Service, action: Action) -> Self {
        Self { service, operations: Vec::new(), ..Self::on("", action) }
    }

    /// An outage of one shard.
    pub fn outage(stream: impl Into<String>, shard: impl Into<String>) -> Self {
        Self::of(Service::Kinesis, Action::Outage).resource(stream).shard(shard)
    }

    /// Only these operations.
    #[must_use]
    pub fn operations<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.operations = names.into_iter().map(Into::into).collect();
        self
    }

    /// Only the stream, table or bucket of this name.
    #[must_use]
    pub fn resource(mut self, name: impl Into<String>) -> Self {
        self.resource = Some(name.into());
        self
    }

    /// Only the shard of this name.
    #[must_use]
    pub fn shard(mut self, id: impl Into<String>) -> Self {
        self.shard = Some(id.into());
        self
    }

    /// Only where the key contains this.
    #[must_use]
    pub fn key(mut self, part: impl Into<String>) -> Self {
        self.key = Some(part.into());
        self
    }

    /// Only on the n-th occasion, counted from 1.
    #[must_use]
    pub fn nth(mut self, n: u64) -> Self {
        self.when = When::Nth(n);
        self
    }

    /// With probability `p`, decided by `seed`.
    #[must_use]
    pub fn probability(mut self, p: f64, seed: u64) -> Self {
        self.when = When::Probability { p, seed };
        self
    }

    /// At most this often.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// Reads a fault from text: `[service:]operations action[=value] [condition=value ...]`.
    ///
    /// * service: `kinesis` (when there is none), `dynamodb` or `s3`;
    /// * operations: one or several with commas between, as `put-records` or `PutRecords`, or `any`;
    /// * action: `throttle`, `throttle-call`, `error=CODE`, `delay=200ms`, `lost`, `duplicate`, `reset`, `stall`,
    ///   `expire-iterator`, `outage`;
    /// * conditions: `stream=`, `table=` or `bucket=`, `shard=`, `key=`; `n=` (the n-th occasion only), `every=`,
    ///   `p=` with `seed=` (chosen at random where it is not given), `times=`; `status=` of an error; and
    ///   `after=commit`, which lets an error or a delay come when everything has happened.
    ///
    /// ```
    /// use headworks_local::faults::Fault;
    /// Fault::parse("put-records throttle p=0.05 seed=7")?;
    /// Fault::parse("subscribe-to-shard stall shard=shardId-000000000001 n=2")?;
    /// Fault::parse("dynamodb:update-item delay=2s after=commit table=leases every=10")?;
    /// Fault::parse("s3:put-object error=AccessDenied times=3")?;
    /// # Ok::<(), headworks_local::faults::FaultError>(())
    /// ```
    ///
    /// # Errors
    /// [`FaultError`], naming the part that cannot be read and what it may be.
    pub fn parse(text: &str) -> Result<Self, FaultError> {
        super::text::parse(text)
    }

    /// Checks that the fault can happen at all.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let known: &[&str] = match self.service {
            Service::Kinesis => &KINESIS,
            Service::DynamoDb => &DYNAMODB,
            Service::S3 => &S3,
        };
        if let Some(unknown) = self.operations.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("{unknown:?} is no operation here: choose any, or of {}", known.join(", ")));
        }
        match self.when {
            When::Nth(0) | When::Every(0) => {
                return Err("occasions are counted from 1, so 0 never comes".to_owned());
            }
            When::Probability { p, .. } if !(0.0..=1.0).contains(&p) => {
                return Err(format!("p is {p}: a probability is from 0 to 1"));
            }
            _ => {}
        }
        if self.shard.is_some() && self.service != Service::Kinesis {
            return Err("only Kinesis has shards".to_owned());
        }
        let only = |name: &str| {
            let here = self.service == Service::Kinesis && self.operations == [name];
            if here { Ok(()) } else { Err(format!("this action is only for {name} of Kinesis")) }
        };
        match &self.action {
            Action::Stall => only("SubscribeToShard"),
            Action::ExpireIterator => only("GetRecords"),
            Action::Outage if self.service != Service::Kinesis => {
                Err("only a shard of Kinesis has an outage".to_owned())
            }
            Action::Outage if self.shard.is_none() => {
                Err("an outage is of one shard: name it with shard=".to_owned())
            }
            Action::Duplicate if self.service == Service::S3 => {
                Err("S3 does nothing twice here: its bodies are streamed".to_owned())
            }
            Action::Error { code, status } | Action::ErrorAfterCommit { code, status } => {
                if code.is_empty() || !code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.') {
                    return Err(format!("{code:?} is no error code: letters and digits only"));
                }
                match status {
                    Some(status) if !(400..600).contains(status) => {
                        Err(format!("status is {status}: an error's is from 400 to 599"))
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Whether it concerns `operation` on `resource`.
    pub(crate) fn concerns(&self, service: Service, operation: &str, resource: Option<&str>) -> bool {
        let named = if self.operations.is_empty() {
            self.action != Action::Outage || RECORDS.contains(&operation)
        } else {
            self.operations.iter().any(|name| name == operation)
        };
        let found = self.resource.as_deref().is_none_or(|wanted| resource == Some(wanted));
        self.service == service && named && found
    }

    /// Whether it decides on the entries of a put, not on the call.
    pub(crate) fn is_of_entries(&self, operation: &str) -> bool {
        if !matches!(operation, "PutRecord" | "PutRecords") {
            return false;
        }
        match self.action {
            Action::Throttle | Action::Outage => true,
            Action::Error { .. } => self.shard.is_some() || self.key.is_some(),
            _ => false,
        }
    }

    /// Whether it decides on the events of a subscription, not on the call.
    pub(crate) fn is_of_events(&self, operation: &str) -> bool {
        operation == "SubscribeToShard" && matches!(self.action, Action::Reset | Action::Stall)
    }

    pub(crate) fn takes_shard(&self, shard: &str) -> bool {
        self.shard.as_deref().is_none_or(|wanted| wanted == shard)
    }

    pub(crate) fn takes_key(&self, key: &str) -> bool {
        self.key.as_deref().is_none_or(|wanted| key.contains(wanted))
    }
}
