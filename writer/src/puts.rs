//! `PutRecords` in the encoding that the endpoint takes.

use std::env;
use std::sync::{Arc, OnceLock};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::Builder;
use aws_sdk_kinesis::operation::put_records::PutRecordsOutput;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use tracing::warn;

use crate::body::Encoding;
use crate::parts::SignedByDigest;
use crate::protocol::{Protocol, is_cbor};
use crate::stream::{CallError, Fault};

/// As the AWS SDKs for Java know it.
const CBOR_DISABLE: &str = "AWS_CBOR_DISABLE";

/// Calls in CBOR, which Kinesis takes, until it shows that the endpoint (an emulator, say) takes only JSON.
#[derive(Debug, Clone)]
pub(crate) struct Puts {
    cbor: Client,
    json: Client,
    /// What the endpoint has been seen to take.
    taken: Arc<OnceLock<Encoding>>,
}

impl Puts {
    /// With the client of this configuration. A protocol that it was given is kept.
    pub(crate) fn new(config: &Builder, has_protocol: bool) -> Self {
        let client = |encoding| match has_protocol {
            true => Client::from_conf(config.clone().build()),
            false => Client::from_conf(
                config.clone().protocol(Protocol::new(encoding)).interceptor(SignedByDigest).build(),
            ),
        };
        let taken = match has_protocol || is_disabled(env::var(CBOR_DISABLE).ok().as_deref()) {
            true => OnceLock::from(Encoding::Json),
            false => OnceLock::new(),
        };
        Self { cbor: client(Encoding::Cbor), json: client(Encoding::Json), taken: Arc::new(taken) }
    }

    /// The client for every other call.
    pub(crate) fn client(&self) -> &Client {
        &self.json
    }

    /// Puts these records on the stream of this name.
    pub(crate) async fn send(
        &self,
        stream: &str,
        records: Vec<PutRecordsRequestEntry>,
    ) -> Result<PutRecordsOutput, CallError> {
        let put = async |client: &Client, records| {
            client.put_records().stream_name(stream).set_records(Some(records)).send().await
        };
        match self.taken.get() {
            Some(Encoding::Json) => return Ok(put(&self.json, records).await?),
            Some(Encoding::Cbor) => return Ok(put(&self.cbor, records).await?),
            None => {}
        }
        // A copy shares its data with the original.
        let error = match put(&self.cbor, records.clone()).await {
            Ok(output) => {
                self.taken.get_or_init(|| Encoding::Cbor);
                return Ok(output);
            }
            Err(error) => error,
        };
        let in_cbor = error.raw_response().map(is_cbor);
        let error = CallError::from(error);
        match (in_cbor, error.fault) {
            (Some(true), _) => {
                self.taken.get_or_init(|| Encoding::Cbor);
                Err(error)
            }
            // Who throttles, or misses a signature, has not come to reading.
            (Some(false), Fault::Permanent | Fault::Ambiguous) => match put(&self.json, records).await {
                Ok(output) => {
                    if *self.taken.get_or_init(|| Encoding::Json) == Encoding::Json {
                        warn!(stream, %error, "PutRecords is refused in CBOR, so it is sent in JSON from now on");
                    }
                    Ok(output)
                }
                // What the first call may have stored stays unknown, whatever is said of the second.
                Err(_) if error.fault == Fault::Ambiguous => Err(error),
                Err(second) => Err(second.into()),
            },
            _ => Err(error),
        }
    }
}

fn is_disabled(value: Option<&str>) -> bool {
    value.is_some_and(|value| !matches!(value, "" | "0" | "false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_does_not_say_no_disables_cbor() {
        for (value, disabled) in [
            (None, false),
            (Some(""), false),
            (Some("0"), false),
            (Some("false"), false),
            (Some("true"), true),
            (Some("1"), true),
        ] {
            assert_eq!(is_disabled(value), disabled, "{value:?}");
        }
    }
}
