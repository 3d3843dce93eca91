"""There and back."""

import asyncio
import datetime
import time
import uuid

import pytest

import headworks
from headworks import errors
from support import PATIENCE, TRACEPARENT, UTC, collect, is_mine, samples


def check_round_trip(sent, got, began):
    by_key = {record.key: record for record in got}
    assert len(by_key) == len(sent) == len(got)
    now = datetime.datetime.now(UTC)
    slack = datetime.timedelta(seconds=1)
    for record in sent:
        back = by_key[record.key]
        assert isinstance(back, headworks.Delivered) and isinstance(back, headworks.Record)
        assert back.data == record.data
        assert back.headers == record.headers
        assert back.explicit_hash_key == record.explicit_hash_key
        assert TRACEPARENT.fullmatch(back.traceparent)
        assert began - slack <= back.created <= now + slack
        assert began - slack <= back.arrival <= now + slack
        assert back.shard.startswith("shardId-") and back.sequence_number.isdigit()
        assert back.sub_sequence_number >= 0
        assert back.shard in repr(back)
    assert len({record.traceparent for record in got}) == len(got)


def test_there_and_back(gateway, stream, aws, run):
    sent, began = samples(run), datetime.datetime.now(UTC)
    with headworks.Producer(gateway, stream) as producer:
        stored = producer.put_many(sent)
    assert all(isinstance(answer, headworks.Receipt) for answer in stored), stored
    with headworks.Consumer(run, stream, **aws) as consumer:
        got = collect(consumer, run, len(sent))
        assert consumer.status()["phase"] == "running"
    assert consumer.status()["phase"] == "stopped"
    check_round_trip(sent, got, began)
    assert {record.stream for record in got} == {stream}
    # Where the producer said that they are.
    place = {record.key: (record.shard, record.sequence_number, record.sub_sequence_number) for record in got}
    said = [(answer.shard, answer.sequence_number, answer.sub_sequence_number) for answer in stored]
    assert [place[record.key] for record in sent] == said


def test_there_and_back_async(gateway, stream, aws, run):
    sent, began = samples(run), datetime.datetime.now(UTC)

    async def there_and_back():
        async with headworks.AsyncProducer(gateway, stream) as producer:
            first, *rest = sent
            stored = [await producer.put(first), *await producer.put_many(rest)]
            await producer.flush()
            assert await producer.close() == {"stored": len(sent), "failed": 0, "unknown": 0, "abandoned": 0}
            with pytest.raises(errors.Closed):
                await producer.put(first)
        assert all(isinstance(answer, headworks.Receipt) for answer in stored), stored
        got = []
        async with headworks.AsyncConsumer(run, stream, **aws) as consumer:
            async for record in consumer:
                if is_mine(record, run):
                    got.append(record)
                record.ack()
                if len(got) == len(sent):
                    break
        assert [record async for record in consumer] == []
        return got

    check_round_trip(sent, asyncio.run(there_and_back()), began)


def test_a_record_joins_the_callers_trace(gateway, stream, aws, run):
    trace = uuid.uuid4().hex
    parent = f"00-{trace}-{'1' * 16}-01"
    with headworks.Producer(gateway, stream) as producer:
        producer.put(headworks.Record(f"{run}-one", b""), traceparent=parent)
        producer.put_many([headworks.Record(f"{run}-many", b"")], traceparent=parent)
        producer.put(headworks.Record(f"{run}-none", b""))
    with headworks.Consumer(run, stream, **aws) as consumer:
        got = {record.key: record.traceparent for record in collect(consumer, run, 3)}
    for name in ("one", "many"):
        _, its_trace, its_span, flags = got[f"{run}-{name}"].split("-")
        assert (its_trace, flags) == (trace, "01") and its_span != "1" * 16
    assert trace not in got[f"{run}-none"]


def test_start_now_and_at_a_time(gateway, stream, aws, run):
    with headworks.Producer(gateway, stream) as producer:
        producer.put(headworks.Record(f"{run}-old", b""))
        with headworks.Consumer(f"{run}-now", stream, start="LATEST", **aws) as consumer:
            deadline = time.monotonic() + PATIENCE
            while not consumer.status()["caught_up"]:
                assert time.monotonic() < deadline, consumer.status()
                time.sleep(0.02)
            later = datetime.datetime.now(UTC)
            producer.put(headworks.Record(f"{run}-new", b""))
            (record,) = collect(consumer, run, 1)
            assert record.key == f"{run}-new"
    with headworks.Consumer(f"{run}-then", stream, start=later - datetime.timedelta(milliseconds=1), **aws) as consumer:
        (record,) = collect(consumer, run, 1)
        assert record.key == f"{run}-new"


@pytest.mark.parametrize(
    ("options", "comes", "dropped", "forgotten"),
    [
        ({}, ["other", "last"], 1, False),
        ({"dedup_window": 0}, ["other", "first", "last"], 0, False),
        # With "other" remembered there is no room for "first".
        ({"dedup_window": 60.0, "dedup_max_identities": 1}, ["other", "first", "last"], 0, True),
    ],
    ids=["by default", "off", "no room"],
)
def test_repeats_are_dropped(gateway, stream, aws, run, options, comes, dropped, forgotten):
    began = datetime.datetime.now(UTC) - datetime.timedelta(milliseconds=1)
    with (
        headworks.Producer(gateway, stream) as producer,
        headworks.Consumer(run, stream, start=began, **options, **aws) as consumer,
    ):

        def put(name):
            producer.put(headworks.Record(f"{run}-{name}", b"", explicit_hash_key=0))

        put("first")
        (first,) = collect(consumer, run, 1)
        before = consumer.status()
        put("other")
        producer.put(first)  # a delivered record keeps its identity
        put("last")
        assert [record.key for record in collect(consumer, run, len(comes))] == [f"{run}-{name}" for name in comes]
        after = consumer.status()
    assert after["repeats_dropped"] - before["repeats_dropped"] == dropped
    assert (after["identities_forgotten"] > 0) == forgotten


def test_a_consumer_that_has_not_started_has_counted_nothing():
    consumer = headworks.Consumer("app", "orders", dedup_window=30.5, dedup_max_identities=5_000)
    assert consumer.status() == {"phase": "new"}
