"""Why ours and another side differ, and which of them AWS documents.

An explanation that no difference needs any more fails the suite, so this list never outlives its reasons.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Explanation:
    """Covers the differences whose names match; `*` and `?` as in file names."""

    side: str
    session: str
    step: str
    path: str
    # ours, theirs or neither.
    documented: str
    why: str
    source: str
    # It depends on timing whether the difference shows up.
    sometimes: bool = False

    def covers(self, side: str, session: str, step: str, path: str) -> bool:
        pairs = [(side, self.side), (session, self.session), (step, self.step), (path, self.path)]
        return all(fnmatchcase(text, pattern.replace("[]", "[[]]")) for text, pattern in pairs)


EXPLAINED: list[Explanation] = []


def _of(side: str):
    def add(session: str, steps: str, path: str, documented: str, why: str, source: str, sometimes: bool = False):
        # Steps are told apart by `|`.
        for step in steps.split("|"):
            EXPLAINED.append(Explanation(side, session, step, path, documented, why, source, sometimes))

    return add


# The constraint stands in the parameter's own description, and the service's model of it makes the error's kind.
LENGTHS = "length, range and pattern of the parameter; Common Errors: ValidationError"

for _side in ("ministack", "kinesis-local"):
    _add = _of(_side)
    _add("*", "*", "message", "neither",
         "Only kinds of errors are documented. Ours has the service's wording where it was seen in public reports.",
         "API reference, Errors of each operation")
    for _session, _step in [("stream lifecycle", "summary"), ("retention", "summary"), ("consumers", "the stream's ARN"),
                            ("subscription *", "the stream's ARN")]:
        _add(_session, _step, "StreamDescriptionSummary.MaxRecordSizeInKiB", "ours", "not known to it",
             "API_StreamDescriptionSummary")
    _add("bad input of streams", "an illegal name|a name too long", "error", "ours",
         "Violations of a parameter's constraints are ValidationException.", f"API_CreateStream: {LENGTHS}")
    _add("bad input of streams", "an illegal limit", "error", "ours",
         "Constraints are checked before the stream is looked up.", f"API_DescribeStream: {LENGTHS}")
    _add("too many shards", "*", "error", "neither",
         "The service refuses more than 100,000 in one request by validation; the reference names no bound.",
         "kinesalite's tests, which ran against the service")
    _add("put record", "no data", "error", "ours", "Data is required.", "API_PutRecord: Data, Required: Yes")
    _add("put record", "a hash that is no number", "error", "ours", "Theirs is an internal error.",
         f"API_PutRecord: ExplicitHashKey, {LENGTHS}")
    _add("put records", "none", "error", "ours", "At least one record is required.",
         "API_PutRecords: Records, Array Members: Minimum number of 1 item. Maximum number of 500 items.")
    _add("put records", "one without a key", "error", "ours", "PartitionKey is required.",
         "API_PutRecordsRequestEntry: PartitionKey, Required: Yes")
    _add("put records", "one with a bad hash", "error", "ours", "Theirs is an internal error.",
         f"API_PutRecordsRequestEntry: ExplicitHashKey, {LENGTHS}")
    _add("shard iterators", "a limit of 0|a limit of 10001", "error", "ours", "Limit is from 1 to 10,000.",
         "API_GetRecords: Limit, Valid Range: Minimum value of 1. Maximum value of 10000.")
    _add("shard iterators", "an illegal iterator", "error", "ours",
         "An iterator that was never issued is no expired one.", "API_GetRecords, Errors: InvalidArgumentException")
    _add("shard iterators", "no iterator", "error", "ours", "ShardIterator is required.",
         "API_GetRecords: ShardIterator, Required: Yes")
    _add("list shards", "a page of 0", "error", "ours", "Theirs is an internal error.",
         "API_ListShards: MaxResults, Valid Range: Minimum value of 1.")
    _add("list shards", "an unknown filter", "error", "ours", "Not one of the valid values.",
         "API_ShardFilter: Type, Valid Values")
    _add("list shards", "filter AT_TRIM_HORIZON", "Shards", "ours",
         "Only the shards that were open at the trim horizon; children came later.", "API_ShardFilter: AT_TRIM_HORIZON")
    _add("update shard count", "an unknown way", "error", "ours", "Not one of the valid values.",
         "API_UpdateShardCount: ScalingType, Valid Values")
    _add("split and merge", "split a closed shard|merge with the parent", "error", "ours",
         "A shard that was split or merged is an invalid argument, as users of the service report.",
         "API_SplitShard, Errors: InvalidArgumentException; kinesalite issue 109")
    _add("subscription positions", "no type", "error", "ours", "Type is required.",
         "API_StartingPosition: Type, Required: Yes")
    _add("tags", "no tags", "error", "ours", "At least one tag is required.",
         "API_AddTagsToStream: Tags, Map Entries: Minimum number of 1 item.")
    _add("consumers", "an illegal name", "error", "ours",
         "Violations of a parameter's constraints are ValidationException.", f"API_RegisterStreamConsumer: {LENGTHS}")

_add = _of("ministack")
_add("bad input of streams", "name and ARN missing", "error", "ours", "Nothing was named that could be missing.",
     "API_DescribeStreamSummary, Errors: InvalidArgumentException")
_add("put record", "a hash out of range", "error", "ours", "Hash keys are below 2^128.",
     "API_PutRecord: ExplicitHashKey; developer guide, Key Concepts: 128-bit integers")
_add("shard iterators", "without a sequence number|an illegal sequence number", "error", "ours",
     "These types need a sequence number of the shard.", "API_GetShardIterator: StartingSequenceNumber, ShardIteratorType")
_add("shard iterators", "without a time", "error", "ours", "An operation's own rule is InvalidArgumentException.",
     "API_GetShardIterator, Errors: InvalidArgumentException")
_RETAIN = "A parent stays with its records until the retention is over; ministack deletes it at once."
_RESHARD = "Developer guide, Resharding a Stream: data routing, data persistence and shard state after a reshard"
_add("split and merge", "shards after the split|shards after the merge", "Shards", "ours", _RETAIN, _RESHARD)
_add("split and merge", "the parent|the parent from the latest|merge", "error", "ours", _RETAIN, _RESHARD)
_add("split and merge", "the high child at its end", "*", "ours", _RETAIN, _RESHARD)
_add("update shard count", "shards", "Shards", "ours", _RETAIN, _RESHARD)
_add("list shards", "the first page", "Shards*", "ours", _RETAIN, _RESHARD)
_add("list shards", "filter FROM_TRIM_HORIZON|filter AFTER_SHARD_ID|filter AT_TIMESTAMP before the split|"
     "filter FROM_TIMESTAMP before *", "Shards", "ours",
     _RETAIN + " It also ignores filters.", "API_ShardFilter")
_add("subscription to the end", "the parent", "error", "ours", _RETAIN, _RESHARD)
_add("split and merge", "split outside the shard|merge with itself", "error", "ours",
     "An operation's own rule is InvalidArgumentException.", "API_SplitShard and API_MergeShards, Errors")
_add("split at a shard's start", "at its start|at its end", "error", "ours",
     "The key has to lie strictly within the shard; an operation's own rule is InvalidArgumentException.",
     "API_SplitShard: NewStartingHashKey; Errors: InvalidArgumentException")
_add("merge of shards that are not adjacent", "merge", "error", "ours", "Their ranges leave a gap.", "API_MergeShards")
_add("merge of shards that are not adjacent", "merge the other way round", "error", "neither",
     "The reference calls the shards adjacent without an order; the service is reported to want the lower one first.",
     "kinesalite's tests, which ran against the service; atlassian/themis, pull request 32")
_add("merge of shards that are not adjacent", "shards", "Shards", "ours", "It follows from the merges before.",
     "API_MergeShards")
_add("update shard count", "more than double|less than half", "error", "ours",
     "More than double or less than half of the current count is refused.", "API_UpdateShardCount: limits in its description")
_add("list shards", "the second page|an illegal token|token and name", "error", "ours",
     "A token stands for the stream, and goes without its name.", "API_ListShards: NextToken")
_add("list shards", "filter without its shard|filter without its time", "error", "ours",
     "The type asks for it.", "API_ShardFilter: ShardId, Timestamp")
_add("tags", "51 tags", "error", "ours", "A stream has at most 50 tags.",
     "API_AddTagsToStream: up to 50 tags; Errors: InvalidArgumentException")
_add("retention", "up *|down *", "error", "ours", "An operation's own rule is InvalidArgumentException.",
     "API_IncreaseStreamRetentionPeriod and API_DecreaseStreamRetentionPeriod, Errors")
_add("limits", "of the account", "error", "ours", "not known to it", "API_DescribeLimits")

_add = _of("kinesis-local")
_add("*", "*", "*HashKeyRange.*", "neither",
     "How the space is cut into shards is not documented; theirs leaves all remainders to the last shard. Both cover it "
     "without gaps.", "API_HashKeyRange")
_SERIAL = "A missing or unknown value is ValidationException; SerializationException is for a body that is no JSON."
_add("bad input of streams", "no name", "error", "ours", _SERIAL, "API_CreateStream: StreamName, Required: Yes")
_add("bad input of streams", "no shards", "error", "ours", "Below the least value.",
     "API_CreateStream: ShardCount, Valid Range: Minimum value of 1.")
_add("put record", "an empty key|a key of 257", "error", "ours",
     "Violations of a parameter's constraints are ValidationException.",
     "API_PutRecord: PartitionKey, Length Constraints: Minimum length of 1. Maximum length of 256.")
_add("put record", "over 1 MiB", "error", "ours",
     "Violations of a parameter's constraints are ValidationException.", f"API_PutRecord: Data, {LENGTHS}")
_add("put records", "501", "error", "ours", "At most 500 records.",
     "API_PutRecords: Records, Array Members: Maximum number of 500 items.")
_add("shard iterators", "an unknown type", "error", "ours", _SERIAL, "API_GetShardIterator: ShardIteratorType, Valid Values")
_add("shard iterators", "an illegal sequence number", "error", "ours",
     "Violations of a parameter's constraints are ValidationException.",
     f"API_GetShardIterator: StartingSequenceNumber, {LENGTHS}")
_add("split at a shard's start", "at its start", "error", "ours",
     "The key has to lie strictly within the shard, or one child would be empty.", "API_SplitShard: NewStartingHashKey")
_add("split at a shard's start", "at its end", "error", "ours", "It follows from the split before.", "API_SplitShard")
_add("update shard count", "double", "StreamARN", "ours", "not known to it", "API_UpdateShardCount, Response Elements")
_add("update shard count", "to nothing", "error", "ours",
     "Violations of a parameter's constraints are ValidationException.",
     "API_UpdateShardCount: TargetShardCount, Valid Range: Minimum value of 1.")
_add("consumers", "list", "NextToken", "ours", "Nothing is left to be listed.",
     "API_ListStreamConsumers: NextToken, when there are more consumers than MaxResults")
for _session in ("consumers", "subscription positions", "subscription to the end", "subscription takeover"):
    _add(_session, "register*", "Consumer.ConsumerStatus", "theirs",
         "A new consumer is CREATING for a while. How long states last is a setting of ours; by default no time at all.",
         "API_RegisterStreamConsumer: initially in the CREATING status", True)
    _add(_session, "wait*", "error", "ours", "A consumer that was just registered is not found for a moment.",
         "API_DescribeStreamConsumer", True)
_FAN = "Its event stream over HTTP/1.1 cannot be read by botocore, and there is no exclusivity."
_add("subscription positions", "trim horizon|at b|after a|at a time|an unknown shard", "error", "ours", _FAN,
     "API_SubscribeToShard")
_add("subscription to the end", "the parent", "error", "ours", _FAN, "API_SubscribeToShard: ChildShards at the end")
_add("subscription takeover", "the first|another at once|another later|what became of the first", "error", "ours", _FAN,
     "API_SubscribeToShard: ResourceInUseException within 5 seconds, takeover after them")
_add("limits", "of the account", "OnDemandStreamCountLimit", "ours", "50 on-demand streams by default.",
     "Developer guide, Quotas and Limits")

_of("ours by Rust's SDK")(
    "subscription positions", "no type", "error", "neither", "The Rust SDK does not send a position without its type.",
    "aws-sdk-kinesis, StartingPosition::builder")
