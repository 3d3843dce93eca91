"""Streams and what is written to them: plain Kinesis records and KPL aggregates, numbered."""

from __future__ import annotations

import hashlib
import itertools
import logging

import aws_kinesis_agg.aggregator

from .harness import DYNAMODB, KINESIS, check, client, eventually

logging.getLogger("aws_kinesis_agg").setLevel(logging.ERROR)

MAX_HASH = 2**128 - 1
_streams = itertools.count(1)


def kinesis():
    return client("kinesis", KINESIS)


def dynamodb():
    return client("dynamodb", DYNAMODB)


def new_stream(name: str, shards: int = 1) -> str:
    """Creates a stream with a name of its own, and returns the name."""
    stream = f"{name}-{next(_streams)}"
    kinesis().create_stream(StreamName=stream, ShardCount=shards)
    active(stream)
    return stream


def active(stream: str) -> None:
    def is_active():
        summary = kinesis().describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
        return summary["StreamStatus"] == "ACTIVE"

    eventually(f"{stream} is ACTIVE", is_active)


def open_shards(stream: str) -> list[dict]:
    shards = kinesis().list_shards(StreamName=stream)["Shards"]
    live = [shard for shard in shards if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]
    return sorted(live, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))


def split(stream: str, shard: dict) -> None:
    start, end = (int(shard["HashKeyRange"][side]) for side in ("StartingHashKey", "EndingHashKey"))
    kinesis().split_shard(StreamName=stream, ShardToSplit=shard["ShardId"],
                          NewStartingHashKey=str((start + end) // 2 + 1))
    active(stream)


def merge(stream: str, first: dict, second: dict) -> None:
    kinesis().merge_shards(StreamName=stream, ShardToMerge=first["ShardId"],
                           AdjacentShardToMerge=second["ShardId"])
    active(stream)


def hash_key(key: str) -> int:
    return int.from_bytes(hashlib.md5(key.encode()).digest(), "big")


class Writer:
    """Writes numbered records; every record's data is unique: `rec-000017`."""

    def __init__(self, stream: str, prefix: str = "rec"):
        self.stream, self.prefix, self.written, self.keys = stream, prefix, [], {}

    def _next(self, key: str) -> bytes:
        data = f"{self.prefix}-{len(self.written):06}"
        self.written.append(data)
        self.keys.setdefault(key, []).append(data)
        return data.encode()

    def plain(self, count: int, keys: int = 7) -> None:
        """Kinesis records without aggregation."""
        for number in range(count):
            key = f"key-{number % keys}"
            kinesis().put_record(StreamName=self.stream, PartitionKey=key, Data=self._next(key))

    def aggregates(self, count: int, members: int = 10, keys: int = 40) -> None:
        """KPL aggregates; members of one lie in one shard, as the KPL builds them."""
        shards = open_shards(self.stream)
        for number in range(count):
            shard = shards[number % len(shards)]["HashKeyRange"]
            low, high = int(shard["StartingHashKey"]), int(shard["EndingHashKey"])
            inside = [key for key in (f"key-{n}" for n in range(keys * len(shards)))
                      if low <= hash_key(key) <= high]
            check(inside, f"no key lies in the shard {shard}")
            aggregator = aws_kinesis_agg.aggregator.RecordAggregator()
            for member in range(members):
                key = inside[member % len(inside)]
                aggregator.add_user_record(key, self._next(key))
            aggregate = aggregator.clear_and_get()
            key, _, data = aggregate.get_contents()
            kinesis().put_record(StreamName=self.stream, PartitionKey=key, Data=data,
                                 ExplicitHashKey=str(hash_key(inside[0])))

    def mixed(self, rounds: int, members: int = 10) -> None:
        """Plain records and aggregates in turn: per round as many as there are open shards, and three."""
        shards = len(open_shards(self.stream))
        for _ in range(rounds):
            self.plain(3)
            self.aggregates(shards, members)


def lease(application: str, shard: str) -> dict:
    """A lease's attributes as text."""
    item = dynamodb().get_item(TableName=application, Key={"leaseKey": {"S": shard}}, ConsistentRead=True)
    check("Item" in item, f"{application} has no lease of {shard}")
    return {name: next(iter(value.values())) for name, value in item["Item"].items()}


def leases(application: str) -> dict[str, dict]:
    items = dynamodb().scan(TableName=application, ConsistentRead=True)["Items"]
    plain = [{name: next(iter(value.values())) for name, value in item.items()} for item in items]
    return {item["leaseKey"]: item for item in plain if "checkpoint" in item}
