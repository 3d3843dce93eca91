"""The scripted sessions of the differential part, in a language that every client's runner speaks.

A session is a list of steps. A step is an operation of Kinesis with its input, or one of the runner's own:

    @active    {stream}                        waits until the stream is ACTIVE
    @pause     {seconds}                       lets time pass, where time is what is asked about
    @now       {}                              answers {time}, to be saved
    @drain     {StreamName, ShardId, …}        a shard iterator and GetRecords to the end: {data, ended, children}
    @subscribe {ConsumerARN, ShardId, StartingPosition, records, seconds}
                                               reads until so many records, or the end: {data, ended, children};
                                               with `hold` it only opens the subscription and leaves it open
    @collect   {hold}                          what the held subscription gave until it ended: {data, ended}

`save` keeps a part of the answer by its path; `${name}` puts it into a later input. {"$bytes": text} is a blob,
{"$fill": n} a blob and {"$word": n} a text of n letters, {"$times": [n, template]} a list with ${i}. `${stream}` is
a name of the run's own.
"""

from __future__ import annotations

SESSIONS: dict[str, list[dict]] = {}


def session(name: str, *steps: dict) -> None:
    assert len({one["name"] for one in steps}) == len(steps), f"step names of {name} repeat"
    SESSIONS[name] = list(steps)


def step(name: str, op: str, save: dict | None = None, **given) -> dict:
    return {"name": name, "op": op, "in": given, "save": save or {}}


def blob(text: str) -> dict:
    return {"$bytes": text}


def stream(shards: int) -> list[dict]:
    return [
        step("create", "CreateStream", StreamName="${stream}", ShardCount=shards),
        step("wait until it is active", "@active", stream="${stream}"),
    ]


def put(name: str, data: str, key: str = "key", **more) -> dict:
    return step(name, "PutRecord", StreamName="${stream}", PartitionKey=key, Data=blob(data), **more)


def moment(name: str) -> list[dict]:
    """A time, in a whole second of its own.

    kinesis-local compares the times of shards in whole seconds, and clients may send whole seconds. So whatever went
    before lies in an earlier second than the time, and whatever follows in a later one, on any side.
    """
    return [
        step(f"a pause before the time {name}", "@pause", seconds=1.2),
        step(f"the time {name}", "@now", save={name: "time"}),
        step(f"a pause after the time {name}", "@pause", seconds=1.2),
    ]


S0, S1, S2, S3, S4 = (f"shardId-{number:012}" for number in range(5))
HALF = str(2**127)
QUARTER = str(2**126)
LAST = str(2**128 - 1)

session(
    "stream lifecycle",
    *stream(2),
    step("create again", "CreateStream", StreamName="${stream}", ShardCount=1),
    step("summary", "DescribeStreamSummary", StreamName="${stream}"),
    step("describe", "DescribeStream", StreamName="${stream}"),
    step("describe with a limit", "DescribeStream", StreamName="${stream}", Limit=1),
    step("describe from a shard on", "DescribeStream", StreamName="${stream}", ExclusiveStartShardId=S0),
    step("delete", "DeleteStream", StreamName="${stream}"),
    step("delete an unknown one", "DeleteStream", StreamName="no-${stream}"),
    step("describe an unknown one", "DescribeStreamSummary", StreamName="no-${stream}"),
)

session(
    "bad input of streams",
    step("no name", "CreateStream", ShardCount=1),
    step("an illegal name", "CreateStream", StreamName="not a name", ShardCount=1),
    step("a name too long", "CreateStream", StreamName={"$word": 129}, ShardCount=1),
    step("no shards", "CreateStream", StreamName="${stream}", ShardCount=0),
    step("name and ARN missing", "DescribeStreamSummary"),
    step("an illegal limit", "DescribeStream", StreamName="${stream}", Limit=0),
    step("retention of an unknown stream", "IncreaseStreamRetentionPeriod", StreamName="no-${stream}",
         RetentionPeriodHours=48),
    step("put to an unknown stream", "PutRecord", StreamName="no-${stream}", PartitionKey="k", Data=blob("x")),
    step("iterator of an unknown stream", "GetShardIterator", StreamName="no-${stream}", ShardId=S0,
         ShardIteratorType="LATEST"),
)

session(
    "too many shards",
    step("more than a request may ask for", "CreateStream", StreamName="${stream}", ShardCount=100_001),
)

session(
    "put record",
    *stream(2),
    step("by key", "PutRecord", StreamName="${stream}", PartitionKey="key", Data=blob("one")),
    step("by the lowest hash", "PutRecord", StreamName="${stream}", PartitionKey="key", ExplicitHashKey="0",
         Data=blob("two")),
    step("by the highest hash", "PutRecord", StreamName="${stream}", PartitionKey="key", ExplicitHashKey=LAST,
         Data=blob("three")),
    step("a hash out of range", "PutRecord", StreamName="${stream}", PartitionKey="key", ExplicitHashKey=str(2**128),
         Data=blob("x")),
    step("a hash that is no number", "PutRecord", StreamName="${stream}", PartitionKey="key", ExplicitHashKey="x",
         Data=blob("x")),
    step("an empty key", "PutRecord", StreamName="${stream}", PartitionKey="", Data=blob("x")),
    step("a key of 256", "PutRecord", StreamName="${stream}", PartitionKey={"$word": 256}, Data=blob("x")),
    step("a key of 257", "PutRecord", StreamName="${stream}", PartitionKey={"$word": 257}, Data=blob("x")),
    step("no data", "PutRecord", StreamName="${stream}", PartitionKey="key"),
    step("empty data", "PutRecord", StreamName="${stream}", PartitionKey="key", Data=blob("")),
    step("1 MiB with its key", "PutRecord", StreamName="${stream}", PartitionKey="k", Data={"$fill": (1 << 20) - 1}),
    step("over 1 MiB", "PutRecord", StreamName="${stream}", PartitionKey="k", Data={"$fill": (1 << 20) + 1}),
)

session(
    "put records",
    *stream(2),
    step("three", "PutRecords", StreamName="${stream}", Records=[
        {"PartitionKey": "a", "Data": blob("1")},
        {"PartitionKey": "b", "Data": blob("2"), "ExplicitHashKey": "0"},
        {"PartitionKey": "c", "Data": blob("3"), "ExplicitHashKey": LAST},
    ]),
    step("what the first shard has", "@drain", StreamName="${stream}", ShardId=S0, ShardIteratorType="TRIM_HORIZON"),
    step("what the second shard has", "@drain", StreamName="${stream}", ShardId=S1, ShardIteratorType="TRIM_HORIZON"),
    step("none", "PutRecords", StreamName="${stream}", Records=[]),
    step("501", "PutRecords", StreamName="${stream}", Records={"$times": [501, {"PartitionKey": "k${i}",
                                                                              "Data": blob("x")}]}),
    step("one without a key", "PutRecords", StreamName="${stream}", Records=[{"Data": blob("x")}]),
    step("one with a bad hash", "PutRecords", StreamName="${stream}", Records=[
        {"PartitionKey": "a", "Data": blob("1")}, {"PartitionKey": "a", "Data": blob("1"), "ExplicitHashKey": "x"}]),
)

session(
    "shard iterators",
    *stream(1),
    step("put a", "PutRecord", save={"a": "SequenceNumber"}, StreamName="${stream}", PartitionKey="k", Data=blob("a")),
    step("put b", "PutRecord", save={"b": "SequenceNumber"}, StreamName="${stream}", PartitionKey="k", Data=blob("b")),
    *moment("time"),
    step("put c", "PutRecord", StreamName="${stream}", PartitionKey="k", Data=blob("c")),
    step("from the trim horizon", "@drain", StreamName="${stream}", ShardId=S0, ShardIteratorType="TRIM_HORIZON"),
    step("from the latest", "@drain", StreamName="${stream}", ShardId=S0, ShardIteratorType="LATEST"),
    step("at b", "@drain", StreamName="${stream}", ShardId=S0, ShardIteratorType="AT_SEQUENCE_NUMBER",
         StartingSequenceNumber="${b}"),
    step("after a", "@drain", StreamName="${stream}", ShardId=S0, ShardIteratorType="AFTER_SEQUENCE_NUMBER",
         StartingSequenceNumber="${a}"),
    step("at a time", "@drain", StreamName="${stream}", ShardId=S0, ShardIteratorType="AT_TIMESTAMP",
         Timestamp={"$at": "${time}"}),
    step("at a time before all", "@drain", StreamName="${stream}", ShardId=S0, ShardIteratorType="AT_TIMESTAMP",
         Timestamp={"$at": 1}),
    step("an unknown type", "GetShardIterator", StreamName="${stream}", ShardId=S0, ShardIteratorType="SOON"),
    step("without a sequence number", "GetShardIterator", StreamName="${stream}", ShardId=S0,
         ShardIteratorType="AT_SEQUENCE_NUMBER"),
    step("without a time", "GetShardIterator", StreamName="${stream}", ShardId=S0, ShardIteratorType="AT_TIMESTAMP"),
    step("an illegal sequence number", "GetShardIterator", StreamName="${stream}", ShardId=S0,
         ShardIteratorType="AT_SEQUENCE_NUMBER", StartingSequenceNumber="x"),
    step("an unknown shard", "GetShardIterator", StreamName="${stream}", ShardId=S4, ShardIteratorType="LATEST"),
    step("an iterator", "GetShardIterator", save={"iterator": "ShardIterator"}, StreamName="${stream}", ShardId=S0,
         ShardIteratorType="TRIM_HORIZON"),
    step("one record", "GetRecords", ShardIterator="${iterator}", Limit=1),
    step("a limit of 0", "GetRecords", ShardIterator="${iterator}", Limit=0),
    step("a limit of 10001", "GetRecords", ShardIterator="${iterator}", Limit=10_001),
    step("an illegal iterator", "GetRecords", ShardIterator="AAAA"),
    step("no iterator", "GetRecords"),
)

session(
    "split and merge",
    *stream(1),
    put("put before", "before"),
    step("split", "SplitShard", StreamName="${stream}", ShardToSplit=S0, NewStartingHashKey=HALF),
    step("wait for the split", "@active", stream="${stream}"),
    step("shards after the split", "ListShards", StreamName="${stream}"),
    put("put low", "low", ExplicitHashKey="0"),
    put("put high", "high", ExplicitHashKey=LAST),
    step("the parent", "@drain", StreamName="${stream}", ShardId=S0, ShardIteratorType="TRIM_HORIZON"),
    step("the parent from the latest", "@drain", StreamName="${stream}", ShardId=S0, ShardIteratorType="LATEST"),
    step("the low child", "@drain", StreamName="${stream}", ShardId=S1, ShardIteratorType="TRIM_HORIZON"),
    step("split a closed shard", "SplitShard", StreamName="${stream}", ShardToSplit=S0, NewStartingHashKey=QUARTER),
    step("split outside the shard", "SplitShard", StreamName="${stream}", ShardToSplit=S1, NewStartingHashKey=LAST),
    step("split an unknown shard", "SplitShard", StreamName="${stream}", ShardToSplit=S4, NewStartingHashKey="5"),
    step("merge with itself", "MergeShards", StreamName="${stream}", ShardToMerge=S1, AdjacentShardToMerge=S1),
    step("merge with the parent", "MergeShards", StreamName="${stream}", ShardToMerge=S1, AdjacentShardToMerge=S0),
    step("merge", "MergeShards", StreamName="${stream}", ShardToMerge=S1, AdjacentShardToMerge=S2),
    step("wait for the merge", "@active", stream="${stream}"),
    step("shards after the merge", "ListShards", StreamName="${stream}"),
    step("the high child at its end", "@drain", StreamName="${stream}", ShardId=S2, ShardIteratorType="TRIM_HORIZON"),
)

session(
    "split at a shard's start",
    *stream(1),
    step("at its start", "SplitShard", StreamName="${stream}", ShardToSplit=S0, NewStartingHashKey="0"),
    step("at its end", "SplitShard", StreamName="${stream}", ShardToSplit=S0, NewStartingHashKey=LAST),
)

session(
    "merge of shards that are not adjacent",
    *stream(4),
    step("merge", "MergeShards", StreamName="${stream}", ShardToMerge=S0, AdjacentShardToMerge=S2),
    step("merge the other way round", "MergeShards", StreamName="${stream}", ShardToMerge=S1, AdjacentShardToMerge=S0),
    step("wait for the merge", "@active", stream="${stream}"),
    step("shards", "ListShards", StreamName="${stream}"),
)

session(
    "update shard count",
    *stream(2),
    step("double", "UpdateShardCount", StreamName="${stream}", TargetShardCount=4, ScalingType="UNIFORM_SCALING"),
    step("wait for it", "@active", stream="${stream}"),
    step("shards", "ListShards", StreamName="${stream}"),
    step("more than double", "UpdateShardCount", StreamName="${stream}", TargetShardCount=9,
         ScalingType="UNIFORM_SCALING"),
    step("less than half", "UpdateShardCount", StreamName="${stream}", TargetShardCount=1,
         ScalingType="UNIFORM_SCALING"),
    step("to nothing", "UpdateShardCount", StreamName="${stream}", TargetShardCount=0, ScalingType="UNIFORM_SCALING"),
    step("an unknown way", "UpdateShardCount", StreamName="${stream}", TargetShardCount=2, ScalingType="LOPSIDED"),
)

session(
    "list shards",
    *stream(4),
    *moment("before"),
    step("split", "SplitShard", StreamName="${stream}", ShardToSplit=S0, NewStartingHashKey="7"),
    step("wait for the split", "@active", stream="${stream}"),
    *moment("after"),
    step("the first page", "ListShards", save={"token": "NextToken"}, StreamName="${stream}", MaxResults=4),
    step("the second page", "ListShards", NextToken="${token}", MaxResults=4),
    step("token and name", "ListShards", NextToken="${token}", StreamName="${stream}"),
    step("an illegal token", "ListShards", NextToken="x"),
    step("a page of 0", "ListShards", StreamName="${stream}", MaxResults=0),
    step("from a shard on", "ListShards", StreamName="${stream}", ExclusiveStartShardId=S2),
    *[
        step(f"filter {name}", "ListShards", StreamName="${stream}", ShardFilter={"Type": name.split()[0], **more})
        for name, more in [("AT_LATEST", {}), ("AT_TRIM_HORIZON", {}), ("FROM_TRIM_HORIZON", {}),
                           ("AFTER_SHARD_ID", {"ShardId": S1}),
                           ("AT_TIMESTAMP before the split", {"Timestamp": {"$at": "${before}"}}),
                           ("AT_TIMESTAMP after the split", {"Timestamp": {"$at": "${after}"}}),
                           ("FROM_TIMESTAMP before the stream", {"Timestamp": {"$at": 1}}),
                           ("FROM_TIMESTAMP before the split", {"Timestamp": {"$at": "${before}"}}),
                           ("FROM_TIMESTAMP after the split", {"Timestamp": {"$at": "${after}"}})]
    ],
    step("filter without its shard", "ListShards", StreamName="${stream}", ShardFilter={"Type": "AFTER_SHARD_ID"}),
    step("filter without its time", "ListShards", StreamName="${stream}", ShardFilter={"Type": "AT_TIMESTAMP"}),
    step("an unknown filter", "ListShards", StreamName="${stream}", ShardFilter={"Type": "SOME"}),
    step("an unknown stream", "ListShards", StreamName="no-${stream}"),
)

session(
    "tags",
    *stream(1),
    step("none yet", "ListTagsForStream", StreamName="${stream}"),
    step("add", "AddTagsToStream", StreamName="${stream}", Tags={"a": "1", "b": "2", "c": ""}),
    step("all", "ListTagsForStream", StreamName="${stream}"),
    step("one", "ListTagsForStream", StreamName="${stream}", Limit=1),
    step("the next", "ListTagsForStream", StreamName="${stream}", Limit=1, ExclusiveStartTagKey="a"),
    step("overwrite", "AddTagsToStream", StreamName="${stream}", Tags={"a": "3"}),
    step("remove", "RemoveTagsFromStream", StreamName="${stream}", TagKeys=["b", "unknown"]),
    step("what is left", "ListTagsForStream", StreamName="${stream}"),
    step("51 tags", "AddTagsToStream", StreamName="${stream}", Tags={f"t{n}": "x" for n in range(51)}),
    step("no tags", "AddTagsToStream", StreamName="${stream}", Tags={}),
)

session(
    "retention",
    *stream(1),
    step("up", "IncreaseStreamRetentionPeriod", StreamName="${stream}", RetentionPeriodHours=48),
    step("wait for up", "@active", stream="${stream}"),
    step("summary", "DescribeStreamSummary", StreamName="${stream}"),
    step("up to less", "IncreaseStreamRetentionPeriod", StreamName="${stream}", RetentionPeriodHours=47),
    step("up beyond the year", "IncreaseStreamRetentionPeriod", StreamName="${stream}", RetentionPeriodHours=8_761),
    step("down", "DecreaseStreamRetentionPeriod", StreamName="${stream}", RetentionPeriodHours=24),
    step("wait for down", "@active", stream="${stream}"),
    step("down below a day", "DecreaseStreamRetentionPeriod", StreamName="${stream}", RetentionPeriodHours=23),
    step("down to more", "DecreaseStreamRetentionPeriod", StreamName="${stream}", RetentionPeriodHours=25),
)

CONSUMER = [
    step("the stream's ARN", "DescribeStreamSummary", save={"arn": "StreamDescriptionSummary.StreamARN"},
         StreamName="${stream}"),
    step("register", "RegisterStreamConsumer", save={"consumer": "Consumer.ConsumerARN"}, StreamARN="${arn}",
         ConsumerName="reader"),
    step("wait until it is registered", "@consumer", ConsumerARN="${consumer}"),
]

session(
    "consumers",
    *stream(1),
    *CONSUMER,
    step("register again", "RegisterStreamConsumer", StreamARN="${arn}", ConsumerName="reader"),
    step("describe by name", "DescribeStreamConsumer", StreamARN="${arn}", ConsumerName="reader"),
    step("describe by ARN", "DescribeStreamConsumer", ConsumerARN="${consumer}"),
    step("describe an unknown one", "DescribeStreamConsumer", StreamARN="${arn}", ConsumerName="nobody"),
    step("list", "ListStreamConsumers", StreamARN="${arn}"),
    step("an illegal name", "RegisterStreamConsumer", StreamARN="${arn}", ConsumerName="not a name"),
    step("deregister", "DeregisterStreamConsumer", StreamARN="${arn}", ConsumerName="reader"),
    step("deregister an unknown one", "DeregisterStreamConsumer", StreamARN="${arn}", ConsumerName="nobody"),
)


def subscribe(name: str, records: int = 0, shard: str = S0, seconds: float = 8, save: dict | None = None,
              hold: str = "", **position) -> dict:
    return step(name, "@subscribe", save=save, ConsumerARN="${consumer}", ShardId=shard, StartingPosition=position,
                records=records, seconds=seconds, hold=hold)


# The service refuses another subscription of a consumer to a shard for five seconds; one consumer each avoids the
# wait where it is not the subject.
def position(name: str, records: int, **start) -> list[dict]:
    return [
        step(f"register for {name}", "RegisterStreamConsumer", save={"consumer": "Consumer.ConsumerARN"},
             StreamARN="${arn}", ConsumerName=name.replace(" ", "-")),
        step(f"wait for {name}", "@consumer", ConsumerARN="${consumer}"),
        subscribe(name, records, **start),
    ]


session(
    "subscription positions",
    *stream(1),
    step("the stream's ARN", "DescribeStreamSummary", save={"arn": "StreamDescriptionSummary.StreamARN"},
         StreamName="${stream}"),
    step("put a", "PutRecord", save={"a": "SequenceNumber"}, StreamName="${stream}", PartitionKey="k", Data=blob("a")),
    step("put b", "PutRecord", save={"b": "SequenceNumber"}, StreamName="${stream}", PartitionKey="k", Data=blob("b")),
    *moment("time"),
    put("put c", "c"),
    *position("trim horizon", 3, Type="TRIM_HORIZON"),
    *position("at b", 2, Type="AT_SEQUENCE_NUMBER", SequenceNumber="${b}"),
    *position("after a", 2, Type="AFTER_SEQUENCE_NUMBER", SequenceNumber="${a}"),
    *position("at a time", 1, Type="AT_TIMESTAMP", Timestamp={"$at": "${time}"}),
    *position("no type", 1),
    subscribe("an unknown shard", 1, shard=S4, Type="LATEST"),
)

session(
    "subscription to the end",
    *stream(1),
    *CONSUMER,
    put("put", "a"),
    step("split", "SplitShard", StreamName="${stream}", ShardToSplit=S0, NewStartingHashKey=HALF),
    step("wait for the split", "@active", stream="${stream}"),
    subscribe("the parent", 99, seconds=12, Type="TRIM_HORIZON"),
)

session(
    "subscription takeover",
    *stream(1),
    *CONSUMER,
    put("put", "a"),
    subscribe("the first", hold="first", Type="TRIM_HORIZON"),
    subscribe("another at once", 1, Type="TRIM_HORIZON"),
    step("five seconds", "@pause", seconds=5.5),
    subscribe("another later", 1, Type="TRIM_HORIZON"),
    step("what became of the first", "@collect", hold="first"),
)

session(
    "limits",
    step("of the account", "DescribeLimits"),
)
