"""The real KCL and our consumer go on where the other one stopped: nothing lost, nothing repeated."""

from __future__ import annotations

import sys
from collections import Counter

from . import streams
from .harness import check, run
from .streams import Writer, new_stream
from .workers import Report, work

MEMBERS = 10
# Long enough for a repeat or a surplus record to show up.
LINGER = 3_000


def exactly_once(writer: Writer, *reports: Report) -> None:
    """Every record in one report once, and per key in the order in which it was written."""
    seen = Counter(data for report in reports for data in report.data())
    lost = [data for data in writer.written if data not in seen]
    repeated = [data for data, times in seen.items() if times > 1]
    strange = [data for data in seen if data not in set(writer.written)]
    check(not lost, f"{len(lost)} of {len(writer.written)} records are lost, the first is {lost[:1]}")
    check(not repeated, f"{len(repeated)} records are repeated, the first is {repeated[:1]}")
    check(not strange, f"records that nobody wrote: {strange[:3]}")
    order: dict[str, list[str]] = {}
    for report in reports:
        for record in report.records:
            order.setdefault(record.key, []).append(record.data)
    for key, written in writer.keys.items():
        check(order.get(key, []) == written, f"the order of the key {key} is not that of the puts")


def handover(first: str, second: str, stop_after: int):
    """One stream with one shard, read in part by one and from there by the other."""

    def scenario() -> None:
        stream = new_stream("handover")
        writer = Writer(stream)
        writer.mixed(20, MEMBERS)
        begun = work(first, stream, stream, stop_after)
        check(len(begun.records) == stop_after, f"{first} printed {len(begun.records)}, not {stop_after}")
        lease = streams.lease(stream, "shardId-000000000000")
        last = begun.records[-1]
        place = (int(lease["checkpoint"]), int(lease["checkpointSubSequenceNumber"]))
        check(place == (last.sequence, last.sub), f"{first} checkpointed {place}, not {last}")
        check(0 < last.sub < MEMBERS - 1, f"the stop is not within an aggregate: {last}")
        left = len(writer.written) - stop_after
        continued = work(second, stream, stream, left, linger=LINGER)
        exactly_once(writer, begun, continued)

    return scenario


def resharded(first: str, second: str):
    """Four shards; a split and a merge after the first worker has stopped, and records before and after them."""

    def scenario() -> None:
        stream = new_stream("resharded", 4)
        writer = Writer(stream)
        writer.mixed(6, MEMBERS)
        stop_after = len(writer.written) // 2 + 3
        begun = work(first, stream, stream, stop_after)
        check(len(streams.leases(stream)) == 4, f"{first} made {len(streams.leases(stream))} leases, not 4")
        shards = streams.open_shards(stream)
        streams.split(stream, shards[0])
        streams.merge(stream, shards[2], shards[3])
        writer.mixed(6, MEMBERS)
        continued = work(second, stream, stream, len(writer.written) - stop_after, linger=LINGER)
        exactly_once(writer, begun, continued)
        ended = {shard for shard, item in streams.leases(stream).items() if item["checkpoint"] == "SHARD_END"}
        parents = {shards[place]["ShardId"] for place in (0, 2, 3)}
        check(ended == parents, f"the leases at SHARD_END are {ended}, not {parents}")

    return scenario


def reshard_then_back(first: str, second: str):
    """The first worker crosses the reshard and stops among the children; the second one finishes them."""

    def scenario() -> None:
        stream = new_stream("crossed", 2)
        writer = Writer(stream)
        writer.mixed(5, MEMBERS)
        before = len(writer.written)
        shards = streams.open_shards(stream)
        streams.split(stream, shards[1])
        writer.mixed(8, MEMBERS)
        stop_after = before + (len(writer.written) - before) // 2 + 3
        begun = work(first, stream, stream, stop_after)
        continued = work(second, stream, stream, len(writer.written) - stop_after, linger=LINGER)
        exactly_once(writer, begun, continued)

    return scenario


def durable_latest(second: str):
    """Ours begins at LATEST on a quiet stream and stops; what comes then, and only that, is for the KCL."""

    def scenario() -> None:
        stream = new_stream("latest", 2)
        before = Writer(stream, "before")
        before.mixed(3, MEMBERS)
        begun = work("ours", stream, stream, 0, linger=6_000, start="LATEST")
        check(not begun.records, f"LATEST brought {len(begun.records)} older records")
        places = {shard: (item["checkpoint"], item["checkpointSubSequenceNumber"])
                  for shard, item in streams.leases(stream).items()}
        check(all(place[0].isdigit() for place in places.values()), f"LATEST was not made durable: {places}")
        after = Writer(stream, "after")
        after.mixed(3, MEMBERS)
        continued = work(second, stream, stream, len(after.written), linger=LINGER, start="LATEST")
        exactly_once(after, continued)

    return scenario


def sub_sequence_number(kind: str, sub: int, expected: int):
    """A checkpoint before, within and past an aggregate's members; sub-sequence numbers are signed 64-bit."""

    def scenario() -> None:
        stream = new_stream("sub")
        writer = Writer(stream)
        writer.aggregates(2, MEMBERS)
        # The table and the lease as the worker itself makes them.
        begun = work(kind, stream, stream, 1)
        first = begun.records[0].sequence
        streams.dynamodb().update_item(
            TableName=stream,
            Key={"leaseKey": {"S": "shardId-000000000000"}},
            UpdateExpression="SET checkpoint = :seq, checkpointSubSequenceNumber = :sub",
            ExpressionAttributeValues={":seq": {"S": str(first)}, ":sub": {"N": str(sub)}},
        )
        continued = work(kind, stream, stream, expected, linger=LINGER)
        check(continued.data() == writer.written[-expected:],
              f"after sub-sequence number {sub} came {len(continued.records)} records, not the last {expected}")

    return scenario


# The sub-sequence number of a checkpoint in the first of two aggregates, and how many records are left after it.
PLACES = {"before": (-1, 2 * MEMBERS), "within": (3, 2 * MEMBERS - 4), "at-the-end-of": (MEMBERS - 1, MEMBERS),
          "past": (2**63 - 1, MEMBERS)}

SCENARIOS = {
    "kcl-polling-then-ours": handover("kcl-polling", "ours", 137),
    "ours-then-kcl-polling": handover("ours", "kcl-polling", 137),
    "kcl-fanout-then-ours": handover("kcl-fanout", "ours", 189),
    "ours-then-kcl-fanout": handover("ours", "kcl-fanout", 189),
    "kcl-fanout-then-ours-across-a-reshard": resharded("kcl-fanout", "ours"),
    "ours-then-kcl-fanout-across-a-reshard": resharded("ours", "kcl-fanout"),
    "kcl-polling-then-ours-among-the-children": reshard_then_back("kcl-polling", "ours"),
    "ours-then-kcl-polling-among-the-children": reshard_then_back("ours", "kcl-polling"),
    "ours-at-latest-then-kcl-polling": durable_latest("kcl-polling"),
    "ours-at-latest-then-kcl-fanout": durable_latest("kcl-fanout"),
    **{f"{kind}-{name}-an-aggregate": sub_sequence_number(kind, *place)
       for name, place in PLACES.items() for kind in ("kcl-polling", "ours")},
}

if __name__ == "__main__":
    sys.exit(run(SCENARIOS, together=4))
