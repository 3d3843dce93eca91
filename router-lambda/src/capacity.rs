//! What an outbound stream takes, as the service says.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::StreamMode;
use headworks_writer::{CallError, Capacity, Config, Fault, StartError};

/// A writer's settings for this stream: a record may be as large as the stream takes, within one call.
///
/// Without the permission to ask, the service's default holds. Any other trouble is waited out: to go on with the default
/// would make dead letters of records that the stream takes.
pub(crate) async fn fitted(client: &Client, stream: &str, config: &Config) -> Result<Config, StartError> {
    let mut config = config.clone();
    let described = match client.describe_stream_summary().stream_name(stream).send().await {
        Ok(described) => described,
        Err(error) => {
            let mut source = CallError::from(error);
            return match &*source.code {
                "AccessDeniedException" => {
                    let limit = config.max_record_bytes;
                    tracing::warn!(
                        stream,
                        limit,
                        "how large its records may be is not known; grant kinesis:DescribeStreamSummary"
                    );
                    Ok(config)
                }
                // The writer finds that out as well.
                "ResourceNotFoundException" => Ok(config),
                _ => {
                    if !source.fault.is_retryable() {
                        // Of a code that is not known it cannot be said that it is no permission.
                        source.fault = Fault::Access;
                    }
                    Err(StartError::Stream { stream: stream.to_owned(), source })
                }
            };
        }
    };
    let Some(summary) = described.stream_description_summary() else { return Ok(config) };
    if let Some(largest) = summary.max_record_size_in_kib().and_then(|kib| usize::try_from(kib).ok()) {
        config.max_record_bytes = (largest << 10).clamp(config.max_record_bytes, config.call_bytes);
    }
    // The writer need not ask once more.
    config.capacity =
        config.capacity.or(match summary.stream_mode_details().map(|details| details.stream_mode()) {
            Some(StreamMode::OnDemand) => Some(Capacity::OnDemand),
            Some(StreamMode::Provisioned) => Some(Capacity::Provisioned),
            _ => None,
        });
    Ok(config)
}
