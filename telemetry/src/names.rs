//! Every name that shows up in a trace or a metric, in one place.
//!
//! Messaging names follow OpenTelemetry's conventions for messaging; what they do not name is ours
//! and begins with `headworks.`. Names are contract: dashboards and alarms rest on them.

// ---- Values and operations ----------------------------------------------------------------------

/// The value of [`MESSAGING_SYSTEM`]. The conventions list no Kinesis value; this follows their form.
pub const AWS_KINESIS: &str = "aws.kinesis";
/// A record comes into being, at the producer or the gateway.
pub const CREATE: &str = "create";
/// A batch is put on a stream.
pub const SEND: &str = "send";
/// A batch is read from a stream.
pub const RECEIVE: &str = "receive";
/// The router decides where a record goes.
pub const ROUTE: &str = "route";
/// A consumer's handler works on a record.
pub const PROCESS: &str = "process";
/// A function is called with a batch.
pub const INVOKE: &str = "invoke";

// ---- Attributes of the conventions --------------------------------------------------------------

/// The messaging system: [`AWS_KINESIS`].
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// The stream's name.
pub const MESSAGING_DESTINATION_NAME: &str = "messaging.destination.name";
/// The shard id.
pub const MESSAGING_DESTINATION_PARTITION_ID: &str = "messaging.destination.partition.id";
/// The operation's own name, as in the span's name.
pub const MESSAGING_OPERATION_NAME: &str = "messaging.operation.name";
/// The operation's class: create, send, receive or process.
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
/// Records in the batch.
pub const MESSAGING_BATCH_MESSAGE_COUNT: &str = "messaging.batch.message_count";
/// The record's identity as other systems know it, if they gave one.
pub const MESSAGING_MESSAGE_ID: &str = "messaging.message.id";
/// Bytes of the record's data.
pub const MESSAGING_MESSAGE_BODY_SIZE: &str = "messaging.message.body.size";
/// The application's (lease table's) name.
pub const MESSAGING_CONSUMER_GROUP_NAME: &str = "messaging.consumer.group.name";
/// The worker's id.
pub const MESSAGING_CLIENT_ID: &str = "messaging.client.id";
/// The Kinesis stream's name.
pub const AWS_KINESIS_STREAM_NAME: &str = "aws.kinesis.stream_name";
/// The id of the AWS request.
pub const AWS_REQUEST_ID: &str = "aws.request_id";
/// The stable code of the error, as in `docs/errors/`.
pub const ERROR_TYPE: &str = "error.type";
/// The service's name.
pub const SERVICE_NAME: &str = "service.name";
/// One process of the service.
pub const SERVICE_INSTANCE_ID: &str = "service.instance.id";
/// The service's version.
pub const SERVICE_VERSION: &str = "service.version";
/// The Lambda invocation's id.
pub const FAAS_INVOCATION_ID: &str = "faas.invocation_id";
/// Whether this invocation was the first of its process.
pub const FAAS_COLDSTART: &str = "faas.coldstart";

// ---- Attributes of ours -------------------------------------------------------------------------

/// Sequence number of the Kinesis record that holds the record.
pub const SEQUENCE_NUMBER: &str = "headworks.sequence_number";
/// The record's place in its aggregate.
pub const SUB_SEQUENCE_NUMBER: &str = "headworks.sub_sequence_number";
/// Puts tried, the successful one included.
pub const ATTEMPTS: &str = "headworks.attempts";
/// The lane's label.
pub const LANE: &str = "headworks.lane";
/// Kinesis records (aggregates) in the batch; [`MESSAGING_BATCH_MESSAGE_COUNT`] counts records.
pub const AGGREGATES: &str = "headworks.aggregates";
/// Bytes put or read.
pub const BYTES: &str = "headworks.bytes";
/// Links left out because a span carries a bounded number.
pub const LINKS_DROPPED: &str = "headworks.links.dropped";
/// The creation context of a record that was not sampled, as `traceparent` text.
pub const CREATION: &str = "headworks.creation";
/// Milliseconds since the record's creation.
pub const AGE_MS: &str = "headworks.age_ms";
/// The name of the routing rule that matched.
pub const RULE: &str = "headworks.rule";
/// The outbound streams that a record was sent to.
pub const DESTINATIONS: &str = "headworks.destinations";
/// How a client is known to the gateway.
pub const PRINCIPAL: &str = "headworks.principal";
/// By which door a call came to the gateway: put, put_stream or http.
pub const DOOR: &str = "headworks.door";
/// The principal's own id for the record, which its identity is derived from.
pub const RECORD_ID: &str = "headworks.record.id";

/// The name of a principal's limit.
pub const LIMIT: &str = "headworks.limit";

// ---- Metrics ------------------------------------------------------------------------------------

/// Names of metrics; units follow UCUM and are part of the contract.
pub mod metric {
    /// Counter, `{record}`: records that a client handed over.
    pub const RECORDS_ACCEPTED: &str = "headworks.records.accepted";
    /// Counter, `{record}`: records that Kinesis has.
    pub const RECORDS_ACKNOWLEDGED: &str = "headworks.records.acknowledged";
    /// Counter, `{record}`, by `error.type`: records that were refused or failed.
    pub const RECORDS_FAILED: &str = "headworks.records.failed";
    /// Counter, `{record}`: records whose deadline passed while a put was in flight.
    pub const RECORDS_OUTCOME_UNKNOWN: &str = "headworks.records.outcome_unknown";
    /// Counter, `{record}`, by destination: records routed.
    pub const RECORDS_ROUTED: &str = "headworks.records.routed";
    /// Counter, `{record}`: records whose handler finished.
    pub const RECORDS_PROCESSED: &str = "headworks.records.processed";
    /// Counter, `{record}`: repeats that de-duplication dropped.
    pub const RECORDS_REPEATED: &str = "headworks.records.repeated";
    /// Counter, `{record}`: records written to the dead letters.
    pub const RECORDS_DEAD_LETTERED: &str = "headworks.records.dead_lettered";
    /// Counter, `{record}`: records delivered raw because an aggregate was damaged.
    pub const RECORDS_DAMAGED: &str = "headworks.records.damaged";
    /// Histogram, `s`, by hop: time from creation, and end to end.
    pub const RECORD_AGE: &str = "headworks.record.age";
    /// Histogram, `By`: size of sealed aggregates.
    pub const AGGREGATE_SIZE: &str = "headworks.aggregate.size";
    /// Histogram, `{record}`: records per sealed aggregate.
    pub const AGGREGATE_RECORDS: &str = "headworks.aggregate.records";
    /// Counter, `{aggregate}`: aggregates put again because another shard answered than was predicted.
    pub const AGGREGATES_MISPLACED: &str = "headworks.aggregates.misplaced";
    /// Counter, `{aggregate}`: aggregates of ours that a reader skipped whole, their writer puts them again.
    pub const AGGREGATES_SKIPPED: &str = "headworks.aggregates.skipped";
    /// Counter, `By`: bytes of keys, headers and data of records that Kinesis has, once each.
    pub const RECORDS_BYTES: &str = "headworks.records.bytes";
    /// Counter, `{call}`: PutRecords calls made.
    pub const PUT_CALLS: &str = "headworks.put.calls";
    /// Counter, `{aggregate}`: Kinesis records put, retries included.
    pub const PUT_AGGREGATES: &str = "headworks.put.aggregates";
    /// Counter, `By`: bytes of those, partition keys included.
    pub const PUT_BYTES: &str = "headworks.put.bytes";
    /// Counter, `{aggregate}`: Kinesis records that the service refused for the moment.
    pub const PUT_REFUSED: &str = "headworks.put.refused";
    /// Counter, `{change}`: fresh shard maps that replaced an old one.
    pub const SHARD_MAP_CHANGES: &str = "headworks.shard_map.changes";
    /// Counter, `{call}`, by `headworks.door` and `error.type`: calls of a gateway that ended.
    pub const GATEWAY_CALLS: &str = "headworks.gateway.calls";
    /// Gauge: 1 while a gateway takes no more records.
    pub const GATEWAY_DRAINING: &str = "headworks.gateway.draining";
    /// Gauge, `By`: bytes that may wait.
    pub const QUEUE_LIMIT: &str = "headworks.queue.limit.bytes";
    /// Counter, `{put}`, by `error.type`: puts tried again.
    pub const PUT_RETRIES: &str = "headworks.put.retries";
    /// Counter, `{put}`: puts that Kinesis throttled.
    pub const PUT_THROTTLED: &str = "headworks.put.throttled";
    /// Gauge, `By`: bytes waiting.
    pub const QUEUE_BYTES: &str = "headworks.queue.bytes";
    /// Gauge, `ms`, by shard: how far a consumer is behind the tip.
    pub const CONSUMER_BEHIND: &str = "headworks.consumer.behind";
    /// Gauge, `{lease}`: leases that a worker holds.
    pub const LEASES_HELD: &str = "headworks.leases.held";
    /// Gauge, `{lease}`: leases of all workers that could be read.
    pub const LEASES_ACTIVE: &str = "headworks.leases.active";
    /// Gauge, `{lease}`: leases that nobody reads although they could be.
    pub const LEASES_UNOWNED: &str = "headworks.leases.unowned";
    /// Counter, `{record}`: records that a consumer left out because they were done before.
    pub const CONSUMER_DUPLICATES: &str = "headworks.consumer.duplicates";
    /// Counter, `{identity}`: identities forgotten before the window was over.
    pub const CONSUMER_IDENTITIES_FORGOTTEN: &str = "headworks.consumer.identities.forgotten";
    /// Counter, `{checkpoint}`: checkpoints written.
    pub const CONSUMER_CHECKPOINTS: &str = "headworks.consumer.checkpoints";
    /// Counter, `{attempt}`: attempts of handlers that failed.
    pub const CONSUMER_HANDLER_FAILURES: &str = "headworks.consumer.handler.failures";
    /// Counter, `{shard}`: shards that expired before they were read to their end.
    pub const CONSUMER_SHARDS_EXPIRED: &str = "headworks.consumer.shards.expired";
    /// Counter, `{checkpoint}`: checkpoints that the trim horizon had passed.
    pub const CONSUMER_CHECKPOINTS_TRIMMED: &str = "headworks.consumer.checkpoints.trimmed";
    /// Counter, `{lease}`: leases taken over from workers that had not released them.
    pub const CONSUMER_TAKE_OVERS: &str = "headworks.consumer.take_overs";
    /// Gauge, `{record}`, by shard: records behind the newest record, estimated.
    pub const CONSUMER_RECORDS_BEHIND: &str = "headworks.consumer.records.behind";
    /// Gauge, `By/s`, by shard: bytes that arrived a second, lately.
    pub const CONSUMER_SHARD_RATE: &str = "headworks.consumer.shard.bytes_per_second";
    /// Gauge, by shard: 1 while it takes nearly all that it may, or far more than others.
    pub const CONSUMER_SHARD_HOT: &str = "headworks.consumer.shard.hot";
    /// Gauge, by shard: 1 while nothing moves although there are records.
    pub const CONSUMER_SHARD_STUCK: &str = "headworks.consumer.shard.stuck";
    /// Gauge, by shard: 1 while it is read without fan-out.
    pub const CONSUMER_SHARD_POLLED: &str = "headworks.consumer.shard.polled";
    /// Counter, `{span}`: spans lost because the queue was full or the collector did not take them.
    pub const SPANS_LOST: &str = "headworks.spans.lost";
    /// Counter, `{call}`, by `error.type`: callers that a gateway did not let in.
    pub const GATEWAY_AUTH_FAILURES: &str = "headworks.gateway.auth.failures";
    /// Counter, `{batch}`, by [`LIMIT`](super::LIMIT): batches that a principal's limit refused or held up.
    pub const GATEWAY_QUOTA_EXCEEDED: &str = "headworks.gateway.quota.exceeded";
    /// Counter, `{line}`: lines that the audit log's disk did not take.
    pub const GATEWAY_AUDIT_LOST: &str = "headworks.gateway.audit.lost";
    /// Counter, `{reload}`, by `error.type`: reloads of the configuration.
    pub const GATEWAY_RELOADS: &str = "headworks.gateway.reloads";
    /// Gauge, `s`: when the configuration in force was read, since 1970.
    pub const GATEWAY_CONFIG_TIME: &str = "headworks.gateway.config.time";
    /// Gauge, by stream: 1 while the stream takes records, as far as is known.
    pub const GATEWAY_STREAM_WRITABLE: &str = "headworks.gateway.stream.writable";
    /// Counter, `{record}`, by stream, as all of the spool's: records that the spool acknowledged.
    pub const SPOOL_APPENDED: &str = "headworks.spool.appended";
    /// Counter, `{record}`: records that could not be written.
    pub const SPOOL_FAILED: &str = "headworks.spool.failed";
    /// Histogram, `s`: how long it took to make writes durable, one fsync each.
    pub const SPOOL_SYNC_DURATION: &str = "headworks.spool.sync.duration";
    /// Gauge, `us`: the slowest of them.
    pub const SPOOL_SLOWEST_SYNC: &str = "headworks.spool.sync.slowest";
    /// Counter, `{file}`: files given up.
    pub const SPOOL_POISONED: &str = "headworks.spool.poisoned";
    /// Counter, `{put}`: refusals that only an operator can mend.
    pub const SPOOL_REFUSED: &str = "headworks.spool.refused";
    /// Counter, `{read}`: failed attempts to read back.
    pub const SPOOL_UNREADABLE: &str = "headworks.spool.unreadable";
    /// Gauge, `{record}`: records that wait.
    pub const SPOOL_RECORDS: &str = "headworks.spool.records";
    /// Gauge, `By`: size of the files.
    pub const SPOOL_BYTES: &str = "headworks.spool.bytes";
    /// Gauge, `By`: size that they may have.
    pub const SPOOL_LIMIT: &str = "headworks.spool.limit.bytes";
    /// Gauge, `ms`: age of the oldest record that waits.
    pub const SPOOL_OLDEST: &str = "headworks.spool.oldest";
    /// Gauge: 1 while somebody has to look.
    pub const SPOOL_ALARM: &str = "headworks.spool.alarm";
    /// Counter, `{record}`, by destination: puts that a router gave up because of a rule's `spill-after`.
    pub const RECORDS_SPILLED: &str = "headworks.records.spilled";
    /// Counter, `{record}`: puts that went on without a slow look-up's headers.
    pub const RECORDS_UNENRICHED: &str = "headworks.records.unenriched";
    /// Gauge, `ms`, by destination: how long the oldest record that it did not take has been on the inbound stream.
    pub const DESTINATION_WAITING: &str = "headworks.destination.waiting";
    /// Counter, `{table}`: route tables put in force after the first.
    pub const ROUTE_TABLES_LOADED: &str = "headworks.route_table.loaded";
    /// Counter, `{table}`: route tables refused, so that the last good one stayed.
    pub const ROUTE_TABLES_REFUSED: &str = "headworks.route_table.refused";
    /// Histogram, `s`: duration of one send or receive, as the conventions name it.
    pub const CLIENT_OPERATION_DURATION: &str = "messaging.client.operation.duration";
    /// Histogram, `s`: duration of a handler's work, as the conventions name it.
    pub const PROCESS_DURATION: &str = "messaging.process.duration";
}
