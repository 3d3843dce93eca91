"""The Python package, as a user installs it: the producer puts, the consumer reads the same stream back.

Run with the interpreter that bindings/python/build.sh prints. What needs a pipeline is told by the environment:

    HEADWORKS_TEST_GATEWAY    address of the gateway's gRPC: host:port, or a URL
    HEADWORKS_TEST_KINESIS    URL of the Kinesis endpoint behind it
    HEADWORKS_TEST_DYNAMODB   URL of a DynamoDB endpoint
    HEADWORKS_TEST_STREAM     inbound stream that the gateway serves; may hold other records already
"""

import ast
import asyncio
import datetime
import faulthandler
import importlib.resources
import inspect
import itertools
import json
import os
import pathlib
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid

import pytest

import headworks
from headworks import errors

PATIENCE = 60.0  # seconds until a condition must hold
BINDING = pathlib.Path(__file__).resolve().parents[2] / "bindings" / "python"
TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]")
UTC = datetime.UTC

# The embedded stack takes any credentials, and a machine that runs tests may have none.
os.environ.setdefault("AWS_ACCESS_KEY_ID", "test")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "test")


def setting(name):
    value = os.environ.get(name)
    if not value:
        pytest.fail(f"{name} is not set; this test needs a running pipeline and is run by the Rust test that starts one")
    return value


@pytest.fixture(autouse=True)
def watchdog():
    """A wait that never ends is told with the stacks of all threads, instead of for ever."""
    faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def gateway():
    address = setting("HEADWORKS_TEST_GATEWAY")
    return address if "://" in address else f"http://{address}"


@pytest.fixture(scope="session")
def stream():
    return setting("HEADWORKS_TEST_STREAM")


@pytest.fixture(scope="session")
def aws():
    return {
        "kinesis_endpoint_url": setting("HEADWORKS_TEST_KINESIS"),
        "dynamodb_endpoint_url": setting("HEADWORKS_TEST_DYNAMODB"),
        "region": os.environ.get("AWS_REGION", "us-east-1"),
    }


@pytest.fixture
def run():
    """A name of this test's own: for its application, and for the keys that tell its records from others.

    Each application registers a fan-out consumer, and a stream has at most 20 of them.
    """
    return f"python-{uuid.uuid4().hex[:12]}"


def is_mine(record, run):
    return record.key.startswith(run)


def collect(consumer, run, count):
    """Acknowledges everything, and returns the first records of this test."""
    mine = []
    for record in consumer:
        if is_mine(record, run):
            mine.append(record)
        assert record.ack()
        if len(mine) == count:
            break
    return mine


def samples(run):
    """Records of every shape that a user may send."""
    blob = bytes(range(256)) * 40
    return [
        headworks.Record(f"{run}-plain", b"hello"),
        headworks.Record(f"{run}-empty", b""),
        headworks.Record(f"{run}-\N{SNOWMAN}", blob, {"type": "order.placed", "city": "Z\u00fcrich"}),
        headworks.Record(f"{run}-array", bytearray(blob), {"content-type": "application/octet-stream"}),
        headworks.Record(f"{run}-view", memoryview(blob)[1:1000], headers=None),
        headworks.Record(f"{run}-low", b"\x00", {}, explicit_hash_key=0),
        headworks.Record(f"{run}-high", b"\xff", explicit_hash_key=2**128 - 1),
        headworks.Record(f"{run}-nested", b"\xf3\x89\x9a\xc2" + blob),
        headworks.Record(f"{run}-large", os.urandom(900_000)),
    ]


# Records and errors: nothing is contacted.


def test_a_record_shows_what_it_was_made_of():
    record = headworks.Record("session-42", b"\x00\xff", {"type": "click", "tenant": "acme"}, 7)
    assert record.key == "session-42"
    assert record.data == b"\x00\xff" and type(record.data) is bytes
    assert record.headers == {"type": "click", "tenant": "acme"}
    assert record.header_items() == [("type", "click"), ("tenant", "acme")]
    assert record.explicit_hash_key == 7
    assert record.traceparent is None and record.created is None
    assert record == headworks.Record("session-42", bytearray(b"\x00\xff"), {"type": "click", "tenant": "acme"}, 7)
    assert record != headworks.Record("session-42", b"")
    assert "session-42" in repr(record) and "<2 bytes>" in repr(record)
    with pytest.raises(AttributeError):
        record.key = "other"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("", b""), "key-empty", "1 to 256"),
        (("k" * 257, b""), "key-too-long", "257 characters, the limit is 256"),
        (("k", b"", {"Content Type": "x"}), "header-name-invalid", "content-type"),
        (("k", b"", {"hw-t": "x"}), "header-name-reserved", "hw-"),
        (("k", b"", {"v": "x" * 2049}), "header-value-too-long", "2049 bytes, the limit is 2048"),
        (("k", b"", {f"h{i}": "" for i in range(33)}), "headers-too-many", "32"),
        (("k", b"", {c: "x" * 2048 for c in "abcd"}), "headers-too-large", "8192"),
        (("k", b"", None, -1), "hash-key-invalid", "2^128 - 1"),
        (("k", b"", None, 2**128), "hash-key-invalid", "340282366920938463463374607431768211456"),
    ],
)
def test_a_bad_record_names_value_limit_and_remedy(arguments, code, text):
    with pytest.raises(errors.InvalidInput) as caught:
        headworks.Record(*arguments)
    error = caught.value
    assert (error.code, error.retryable, error.outcome_unknown) == (code, False, False)
    assert text in str(error)
    assert isinstance(error, ValueError) and isinstance(error, headworks.HeadworksError)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("k", "text"), "encode"),
        (("k", 12), "int, not bytes"),
        (("k", b"", {"n": 1}), "header value 1 is int, not str"),
        (("k", b"", {1: "n"}), "header name 1 is int, not str"),
        (("k", b"", ["type"]), "dict"),
        ((None, b""), "str"),
    ],
)
def test_a_wrong_type_is_a_type_error(arguments, text):
    with pytest.raises(TypeError, match=text):
        headworks.Record(*arguments)


def test_exceptions_have_one_base_and_travel_between_processes():
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), headworks.HeadworksError)
    error = errors.Unavailable("no gateway", "gateway-unreachable", True, False)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is errors.Unavailable
    assert (str(copy), copy.code, copy.retryable, copy.outcome_unknown) == ("no gateway", "gateway-unreachable", True, False)


def classes():
    """Code to class, as the binding chooses it."""
    body = (BINDING / "src" / "error.rs").read_text().split("fn class(", 1)[1].split("\n}\n", 1)[0]
    arms = re.findall(r'((?:"[a-z-]+"\s*\|?\s*)+)=>\s*\{?\s*"(\w+)"', body)
    codes = [(code, name) for pattern, name in arms for code in re.findall(r'"([a-z-]+)"', pattern)]
    assert len(codes) == len(dict(codes)), "a code is listed twice"
    # Nothing of the function was overlooked.
    literals = sorted(re.findall(r'"([^"]+)"', body))
    assert sorted([code for code, _ in codes] + [name for _, name in arms] + ["HeadworksError"]) == literals
    return dict(codes)


def test_every_class_is_raised():
    assert set(classes().values()) | {"HeadworksError"} == set(errors.__all__)


# Sections of docs/errors/README.md whose codes a Python program never meets, and single codes of other sections.
ELSEWHERE = {
    "HTTP",
    "Router: route table",
    "Router: function and dead letters",
    "Embedded stack: start and stop",
    "Embedded stack: event source mapping and functions",
    "Embedded stack: Kinesis",
}
NOT_IN_PYTHON = {
    # The gateway does not start, or ends, or reloads, with these.
    "address-in-use",
    "audit-log-unwritable",
    "jwks-invalid",
    "key-file-invalid",
    "listen-unencrypted",
    "protection-keys-invalid",
    "protection-key-unavailable",
    "reload-needs-restart",
    "spool-damaged",
    "spool-in-use",
    "spool-unusable",
    "tls-invalid",
    "listen-exposed",
    "listen-failed",
    "serve-failed",
    "stream-unreadable",
    # Logged and counted, and no exception.
    "checkpoint-trimmed",
    "shard-expired",
    # A consumer in Python has no handler, no effects, and checkpoints by itself.
    "checkpoint-not-delivered",
    "effects-refused",
    "effects-too-large",
    "handler-failed",
    # Resets, replays, and the reading of protected fields, are not in the package.
    "checkpoint-moved",
    "protected-field-changed",
    "protection-key-unknown",
    "replay-range-invalid",
    "replay-token-invalid",
    "workers-alive",
    # The binding installs no subscriber, and an export that fails at exit is no exception.
    "telemetry-already-installed",
    "telemetry-flush-failed",
}
# Faults of Headworks itself: nothing that a caller could do about them has a class.
FAULTS = {"internal", "consumer-internal", "telemetry-no-runtime"}


def test_every_code_that_may_reach_python_has_a_class():
    pages = (BINDING.parents[1] / "docs" / "errors" / "README.md").read_text().split("\n## Codes\n", 1)[1]
    sections = {}
    for section in re.split(r"^### ", pages, flags=re.MULTILINE)[1:]:
        title, rest = section.split("\n", 1)
        sections[title.strip()] = set(re.findall(r"^\| \[`([a-z0-9-]+)`\]", rest, re.MULTILINE))
    assert all(sections.values()) and ELSEWHERE <= sections.keys(), sorted(sections)
    reaching = set().union(*(codes for title, codes in sections.items() if title not in ELSEWHERE))
    assert NOT_IN_PYTHON | FAULTS <= reaching, "not a code any more"
    table, own = classes(), set(own_codes())
    assert reaching - NOT_IN_PYTHON - FAULTS == table.keys() - own
    # What the binding says itself, beyond the codes that have a page.
    assert own <= table.keys() and not own & reaching


def own_codes():
    """The codes of the package's own that its README explains: each with class and retryable."""
    rows = re.findall(r"^\| `([a-z-]+)` \| `(\w+)` \|.*\| (yes|no) \|$", (BINDING / "README.md").read_text(), re.MULTILINE)
    return {code: (name, retryable == "yes") for code, name, retryable in rows}


def test_the_readme_explains_the_codes_of_the_package():
    source = (BINDING / "src" / "error.rs").read_text()
    made = set(re.findall(r'Self::new\(\s*"([a-z-]+)"', source))
    # The producer SDK has this one, too, and a page.
    assert made - {"producer-closed"} == own_codes().keys()
    assert {code: name for code, (name, _) in own_codes().items()}.items() <= classes().items()
    assert [code for code, (_, retryable) in own_codes().items() if retryable] == ["runtime-not-started"]


def test_the_stubs_name_what_there_is():
    package = importlib.resources.files("headworks")
    assert (package / "py.typed").is_file()
    stubs = ast.parse((package / "_headworks.pyi").read_text())
    native = sys.modules["headworks._headworks"]
    checked = 0
    for node in stubs.body:
        if isinstance(node, ast.FunctionDef):
            assert callable(getattr(native, node.name))
        # What exists for the type checker only derives from TypedDict.
        if not isinstance(node, ast.ClassDef) or "TypedDict" in map(ast.unparse, node.bases):
            continue
        told = {member.name for member in node.body if isinstance(member, ast.FunctionDef)}
        there = {name for name in vars(getattr(native, node.name)) if not name.startswith("__")}
        assert there == {name for name in told if not name.startswith("__")}, node.name
        assert all(hasattr(getattr(native, node.name), name) for name in told), node.name
        checked += 1
    assert checked == 7
    for name in headworks.__all__:
        assert hasattr(headworks, name)


@pytest.mark.parametrize(
    ("arguments", "keywords", "text"),
    [
        (("ab", "orders"), {}, "3 to 247"),
        (("my app", "orders"), {}, "my app"),
        (("app", ""), {}, "stream"),
        (("app", "orders"), {"start": "EARLIEST"}, "TRIM_HORIZON"),
        (("app", "orders"), {"start": datetime.datetime(2026, 1, 1)}, "time zone"),
        (("app", "orders"), {"start": datetime.datetime(1960, 1, 1, tzinfo=UTC)}, "1970"),
        (("app", "orders"), {"take_over_after": 0.5}, "take_over_after"),
        (("app", "orders"), {"checkpoint_interval": -1}, "zero or more"),
        (("app", "orders"), {"max_unacknowledged": 0}, "max_unacknowledged"),
        (("app", "orders"), {"max_unacknowledged": -1}, "max_unacknowledged is -1; it takes a number from 0"),
        (("app", "orders"), {"dedup_window": -1}, "dedup_window is -1; it takes seconds, zero or more"),
        (("app", "orders"), {"dedup_window": 900.5}, 'dedup_window "900.5s" must be from 0ns to 900s'),
        (("app", "orders"), {"dedup_max_identities": 0}, 'dedup_max_identities "0" must be from 1 to 100000000'),
        (("app", "orders"), {"dedup_max_identities": 10**9}, "from 1 to 100000000"),
        (("app", "orders"), {"dedup_max_identities": -1}, "dedup_max_identities is -1; it takes a number from 0"),
        (("app", "orders"), {"dedup_max_identities": 10**30}, f"dedup_max_identities is {10**30}"),
        (("app", "orders"), {"dedup_window": 10**400}, "dedup_window is 1000"),
        (("app", "orders"), {"undecodable": "skip"}, "deliver_raw"),
        (("app", "orders"), {"worker_table": "app"}, "of their own"),
    ],
)
@pytest.mark.parametrize("kind", [headworks.Consumer, headworks.AsyncConsumer])
def test_a_bad_consumer_is_refused_at_once(kind, arguments, keywords, text):
    with pytest.raises(errors.InvalidInput, match=text):
        kind(*arguments, **keywords)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: headworks.Consumer("app", "orders", starts="LATEST"), "starts"),
        (lambda: headworks.Consumer("app", "orders", region=1), "region"),
        (lambda: headworks.Consumer("app", "orders", dedup_window=datetime.timedelta(seconds=1)), "dedup_window"),
        (lambda: headworks.Consumer("app", "orders", dedup_max_identities=1.5), "dedup_max_identities"),
        (lambda: headworks.Consumer("app"), "stream"),
        (lambda: headworks.Producer(time_out=1), "time_out"),
        (lambda: headworks.Producer(timeout="1"), "timeout"),
    ],
)
def test_a_wrong_argument_is_a_type_error(make, text):
    with pytest.raises(TypeError, match=text):
        make()


def test_a_consumer_without_a_region_says_so(monkeypatch):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(errors.InvalidInput, match="AWS_REGION"):
        next(headworks.Consumer("app", "orders", endpoint_url="http://127.0.0.1:9"))


# The producer.


@pytest.mark.parametrize("endpoint", ["", "127.0.0.1", "ftp://127.0.0.1:1", "http://a b"])
def test_a_bad_endpoint_is_named(endpoint):
    with pytest.raises(errors.InvalidInput) as caught, headworks.Producer(endpoint):
        pass
    assert repr(endpoint).strip("'") in str(caught.value) and "http://127.0.0.1:4400" in str(caught.value)


def test_a_bad_option_is_named():
    with pytest.raises(errors.InvalidInput, match="batch_records is 0"), headworks.Producer(batch_records=0):
        pass


def test_no_gateway_there():
    producer = headworks.Producer("http://127.0.0.1:9", connect_timeout=0.3)
    with pytest.raises(errors.Unavailable) as caught:
        producer.put(headworks.Record("k", b""))
    assert caught.value.code == "gateway-unreachable" and caught.value.retryable
    assert "http://127.0.0.1:9" in str(caught.value)


def test_a_stream_that_the_gateway_does_not_serve(gateway):
    with pytest.raises(errors.HeadworksError, match="no-such-stream"), headworks.Producer(gateway, "no-such-stream"):
        pass


def test_put_says_where_the_record_is(gateway, stream, run):
    with headworks.Producer(gateway, stream) as producer:
        stored = producer.put(headworks.Record(run, b"x"))
        assert re.fullmatch(r"shardId-\d{12}", stored.shard)
        assert stored.sequence_number.isdigit() and stored.sub_sequence_number >= 0 and stored.attempts >= 1
        assert stored.shard in repr(stored)
        assert producer.put_many([]) == []
        producer.flush()
        assert producer.close() == {"stored": 1, "failed": 0, "unknown": 0, "abandoned": 0}
        with pytest.raises(errors.Closed):
            producer.put(headworks.Record(run, b"late"))


def test_one_bad_record_hides_no_answer(gateway, run):
    records = [headworks.Record(run, b"a"), headworks.Record(run, bytes(11 << 20)), headworks.Record(run, b"c")]
    with headworks.Producer(gateway) as producer:
        first, second, third = producer.put_many(iter(records))
        with pytest.raises(errors.InvalidInput):
            producer.put(records[1])
        with pytest.raises(TypeError):
            producer.put_many([b"no record"])
        with pytest.raises(errors.InvalidInput, match="W3C"):
            producer.put(records[0], traceparent="00-abc")
    assert isinstance(first, headworks.Receipt) and isinstance(third, headworks.Receipt)
    assert isinstance(second, errors.InvalidInput)
    assert second.code == "record-too-large" and not second.outcome_unknown


# There and back.


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


# Checkpoints.


def put_in_order(gateway, stream, run, count):
    """All on one shard, so that their order is one; in as few Kinesis records as the gateway likes."""
    records = [headworks.Record(f"{run}-{i:04}", i.to_bytes(2), explicit_hash_key=0) for i in range(count)]
    with headworks.Producer(gateway, stream) as producer:
        stored = producer.put_many(records)
    assert all(isinstance(answer, headworks.Receipt) for answer in stored), stored
    return [record.key for record in records]


@pytest.mark.parametrize("way", ["ack", "checkpoint"])
def test_a_second_consumer_resumes_exactly_after(gateway, stream, aws, run, way):
    keys = put_in_order(gateway, stream, run, 300)

    def read(count, unacknowledged=0):
        """The keys of the next records of this test: some acknowledged, then some that are not."""
        taken = []
        with headworks.Consumer(run, stream, **aws) as consumer:
            for record in consumer:
                mine = is_mine(record, run)
                if mine:
                    taken.append(record.key)
                if way == "ack" and not (mine and len(taken) > count):
                    record.ack()
                if way == "checkpoint" and mine and len(taken) == count:
                    assert consumer.checkpoint() >= 1
                if len(taken) == count + unacknowledged:
                    break
        return taken

    # In the middle of an aggregate, and again in it, and to the end.
    assert read(37, unacknowledged=5) == keys[:42]
    assert read(1) == keys[37:38]
    assert read(100, unacknowledged=1) == keys[38:139]
    assert read(162) == keys[138:]


def test_acknowledging_out_of_order_holds_the_checkpoint(gateway, stream, aws, run):
    keys = put_in_order(gateway, stream, run, 10)
    with headworks.Consumer(run, stream, **aws) as consumer:
        mine = []
        for record in consumer:
            if is_mine(record, run):
                mine.append(record)
            else:
                record.ack()
            if len(mine) == len(keys):
                break
        assert [record.key for record in mine] == keys
        for record in reversed(mine):
            if record.key != keys[4]:
                assert record.ack()
        assert not mine[0].ack(), "acknowledged twice"
    assert not mine[4].ack(), "given back when the consumer closed"
    with headworks.Consumer(run, stream, **aws) as consumer:
        assert [record.key for record in collect(consumer, run, 6)] == keys[4:]


def test_a_closing_consumer_waits_for_other_threads_if_told(gateway, stream, aws, run):
    put_in_order(gateway, stream, run, 3)
    consumer = headworks.Consumer(run, stream, **aws)
    held = []
    for record in consumer:
        if is_mine(record, run):
            held.append(record)
        else:
            record.ack()
        if len(held) == 3:
            break
    closer = threading.Thread(target=lambda: consumer.close(wait_for_acks=True))
    closer.start()
    for record in held[:2]:
        assert record.ack(), "given back before its time"
    assert closer.is_alive(), "closed while a record was in hand"
    assert held[2].ack()
    closer.join(PATIENCE)
    assert not closer.is_alive()
    later = put_in_order(gateway, stream, f"{run}-later", 1)
    with headworks.Consumer(run, stream, **aws) as consumer:
        assert [record.key for record in collect(consumer, run, 1)] == later


def test_unacknowledged_records_are_bounded(gateway, stream, aws, run):
    keys = put_in_order(gateway, stream, run, 50)
    with headworks.Consumer(run, stream, max_unacknowledged=10, **aws) as consumer:
        mine = list(itertools.islice(acking_others(consumer, run), 10))
        assert [record.key for record in mine] == keys[:10]
        for record in mine:
            record.ack()
        more = list(itertools.islice(acking_others(consumer, run), 10))
        assert [record.key for record in more] == keys[10:20]


def acking_others(consumer, run):
    for record in consumer:
        if is_mine(record, run):
            yield record
        else:
            record.ack()


# Waiting.


def test_other_threads_run_and_close_ends_the_wait(stream, aws, run):
    consumer = headworks.Consumer(run, stream, start="LATEST", **aws)
    ended = threading.Event()

    def read():
        for record in consumer:
            record.ack()
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    deadline = time.monotonic() + PATIENCE
    while consumer.status()["phase"] != "running":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    # Were the interpreter held by the reader's wait, this thread would get no turn at all.
    turns, until = 0, time.monotonic() + 0.3
    while time.monotonic() < until:
        turns += 1
    assert turns > 1000
    consumer.close()
    assert ended.wait(PATIENCE)
    reader.join()
    assert next(consumer, None) is None
    with pytest.raises(errors.Closed):
        consumer.__enter__()


def test_giving_up_an_await_loses_nothing(gateway, stream, aws, run):
    keys = put_in_order(gateway, stream, run, 40)

    async def read():
        taken = []
        async with headworks.AsyncConsumer(run, stream, **aws) as consumer:
            patience = 0.0
            while len(taken) < len(keys):
                try:
                    # Given up at every stage of the wait, sooner or later.
                    async with asyncio.timeout(patience):
                        record = await anext(consumer)
                except TimeoutError:
                    patience += 0.0005
                    continue
                if is_mine(record, run):
                    taken.append(record.key)
                    patience = 0.0
                record.ack()
        return taken

    assert asyncio.run(read()) == keys


def test_the_event_loop_gets_its_turns(gateway, stream, aws, run):
    count = 2000
    put_in_order(gateway, stream, run, count)

    async def read():
        turns = 0

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        taken = 0
        async with headworks.AsyncConsumer(run, stream, **aws) as consumer:
            async for record in consumer:
                taken += is_mine(record, run)
                if taken == 1:
                    turns = 0
                if taken == count:
                    break
            consumer.checkpoint()
        task.cancel()
        return turns

    assert asyncio.run(read()) >= count // 256


SCRIPTS = []


@pytest.fixture(autouse=True)
def no_script_is_left():
    """A test that fails half-way leaves no process behind."""
    yield
    while SCRIPTS:
        process = SCRIPTS.pop()
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def script(text, *, environment=None):
    """Python of its own, so that signals and forks concern nobody else."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-u", "-c", textwrap.dedent(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (environment or {}),
    )
    SCRIPTS.append(process)
    return process


def test_ctrl_c_ends_a_wait(stream, aws, run):
    process = script(f"""
        import time
        import headworks
        with headworks.Consumer({run!r}, {stream!r}, start="LATEST", **{aws!r}) as consumer:
            while consumer.status()["phase"] != "running":
                time.sleep(0.01)
            print("waiting")
            for record in consumer:
                record.ack()
    """)
    assert process.stdout.readline() == "waiting\n", process.communicate()
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, talk = process.communicate(timeout=PATIENCE)
    assert "KeyboardInterrupt" in talk and process.returncode == -signal.SIGINT
    assert time.monotonic() - began < 5, "the wait and the closing together"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_gets_an_error_and_no_deadlock(gateway, run):
    process = script(f"""
        import os, sys, headworks
        producer = headworks.Producer({gateway!r})
        record = headworks.Record({run!r}, b"x")
        producer.put(record)
        child = os.fork()
        if child == 0:
            for use in (lambda: producer.put(record), lambda: headworks.Producer({gateway!r}).put(record)):
                try:
                    use()
                except headworks.errors.UsedAfterFork as error:
                    print(error.code, "spawn" in str(error))
            sys.exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        producer.put(record)
    """)
    said, talk = process.communicate(timeout=PATIENCE)
    assert said.split() == ["used-after-fork", "True"] * 2 + ["7"], talk
    assert process.returncode == 0, talk


def test_headworks_in_forked_children_only(gateway, run):
    process = script(f"""
        import os, headworks
        if (child := os.fork()) == 0:
            with headworks.Producer({gateway!r}) as producer:
                print(producer.put(headworks.Record({run!r}, b"x")).attempts)
            os._exit(0)
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    said, talk = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and said.strip().isdigit(), talk


def test_the_interpreter_ends_with_everything_open(gateway, stream, aws, run):
    process = script(f"""
        import headworks
        producer = headworks.Producer({gateway!r})
        producer.put(headworks.Record({run!r}, b"x"))
        consumer = headworks.Consumer({run!r}, {stream!r}, **{aws!r})
        record = next(consumer)
        print("done")
    """)
    said, talk = process.communicate(timeout=PATIENCE)
    assert (said, talk, process.returncode) == ("done\n", "", 0)


# Errors of the consumer, and the README.


def test_a_stream_that_does_not_exist(aws, run):
    with pytest.raises(errors.NotFound) as caught:
        next(headworks.Consumer(run, "no-such-stream", startup_timeout=PATIENCE, **aws))
    assert caught.value.code == "kinesis-not-found" and "no-such-stream" in str(caught.value)


def test_no_kinesis_there(aws, stream, run):
    nobody = aws | {"kinesis_endpoint_url": "http://127.0.0.1:9"}
    with pytest.raises(errors.Unavailable) as caught:
        next(headworks.Consumer(run, stream, startup_timeout=1, **nobody))
    assert caught.value.retryable


def test_an_error_ends_the_async_iteration_too(aws, run):
    async def read():
        async with headworks.AsyncConsumer(run, "no-such-stream", **aws) as consumer:
            async for _ in consumer:
                pass

    with pytest.raises(errors.NotFound):
        asyncio.run(read())


def test_the_readme_examples_run(gateway, stream, aws, run):
    blocks = re.findall(r"```python\n(.*?)```", (BINDING / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    environment = {
        "AWS_ENDPOINT_URL_KINESIS": aws["kinesis_endpoint_url"],
        "AWS_ENDPOINT_URL_DYNAMODB": aws["dynamodb_endpoint_url"],
        "AWS_REGION": aws["region"],
    }
    for number, block in enumerate(blocks):
        for placeholder, value in (
            ("http://127.0.0.1:4400", gateway),
            ('"orders"', json.dumps(stream)),
            ('"order-mails"', json.dumps(f"{run}-{number}")),
            ("session-42", run),
        ):
            assert placeholder in block
            block = block.replace(placeholder, value)
        process = script(block, environment=environment)
        said, talk = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, talk
        assert run in said and "order.placed" in said, said


def test_docs_reach_help():
    for thing in (headworks.Record, headworks.Producer, headworks.Consumer, headworks.AsyncConsumer):
        assert inspect.getdoc(thing)
