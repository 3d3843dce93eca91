"""The contract, from outside: a client made of nothing but the .proto files and PyPI packages sends records, and
boto3 with aws_kinesis_agg reads them back.

A running gateway and its Kinesis are named by the environment:

    HEADWORKS_TEST_GATEWAY   host:port of the gateway's gRPC, plain text
    HEADWORKS_TEST_KINESIS   URL of the Kinesis endpoint behind it
    HEADWORKS_TEST_STREAM    inbound stream that the gateway serves; may hold other records already
"""

import base64
import collections
import contextlib
import hashlib
import importlib
import importlib.resources
import os
import pathlib
import queue
import re
import sys
import time
import uuid
from concurrent import futures

import boto3
import grpc
import pytest
from aws_kinesis_agg import MAGIC
from aws_kinesis_agg.deaggregator import iter_deaggregate_records
from botocore.config import Config
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
PATIENCE = 30.0  # seconds until a condition must hold
Contract = collections.namedtuple("Contract", "pb grpc aggregate")
Position = collections.namedtuple("Position", "shard sequence sub")
Read = collections.namedtuple("Read", "key data")


def setting(name):
    value = os.environ.get(name)
    if not value:
        pytest.fail(f"{name} is not set; this test needs a running gateway and is run by the Rust test that starts one")
    return value


@pytest.fixture(scope="session")
def contract(tmp_path_factory):
    """The generated modules, made here and now from the .proto files."""
    out = tmp_path_factory.mktemp("stubs")
    bundled = importlib.resources.files("grpc_tools") / "_proto"
    files = sorted(str(f.relative_to(PROTO)) for f in PROTO.glob("headworks/v1/*.proto"))
    assert "headworks/v1/gateway.proto" in files
    arguments = ["protoc", f"-I{PROTO}", f"-I{bundled}", f"--python_out={out}", f"--grpc_python_out={out}"]
    assert protoc.main([*arguments, *files]) == 0, "the .proto files do not compile"
    # Regular packages, so that an installed package of the same name does not win.
    for folder in ("headworks", "headworks/v1"):
        (out / folder / "__init__.py").touch()
    sys.path.insert(0, str(out))
    try:
        yield Contract(
            pb=importlib.import_module("headworks.v1.gateway_pb2"),
            grpc=importlib.import_module("headworks.v1.gateway_pb2_grpc"),
            aggregate=importlib.import_module("headworks.v1.aggregated_record_pb2"),
        )
    finally:
        sys.path.remove(str(out))


@pytest.fixture(scope="session")
def gateway(contract):
    # A proxy of the environment is none of the loopback's business.
    options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(setting("HEADWORKS_TEST_GATEWAY"), options=options) as channel:
        with contextlib.suppress(grpc.FutureTimeoutError):
            grpc.channel_ready_future(channel).result(timeout=PATIENCE)
            yield contract.grpc.GatewayStub(channel)
            return
        pytest.fail(f"no gateway answers at {os.environ['HEADWORKS_TEST_GATEWAY']}")


@pytest.fixture(scope="session")
def stream():
    return setting("HEADWORKS_TEST_STREAM")


@pytest.fixture(scope="session")
def kinesis():
    with contextlib.closing(
        boto3.client(
            "kinesis",
            endpoint_url=setting("HEADWORKS_TEST_KINESIS"),
            region_name=os.environ.get("AWS_DEFAULT_REGION", "us-east-1"),
            aws_access_key_id="test",
            aws_secret_access_key="test",
            # A proxy of the environment is none of the loopback's business.
            config=Config(retries={"mode": "standard", "total_max_attempts": 5}, proxies={}),
        )
    ) as client:
        yield client


@pytest.fixture
def run():
    """A prefix that tells this test's records from all others."""
    return f"foreign-{uuid.uuid4().hex[:12]}-"


class Reader:
    """Reads a whole stream from its oldest record, shard by shard, as a stock consumer would."""

    def __init__(self, client, stream):
        self.client, self.stream = client, stream
        self.iterators = {}  # shard id -> iterator, None at the shard's end
        self.raw = {}  # (shard id, sequence number) -> data of the Kinesis record
        self.records = {}  # Position -> Read

    def shards(self):
        shards, arguments = [], {"StreamName": self.stream}
        while True:
            page = self.client.list_shards(**arguments)
            shards += page["Shards"]
            if not page.get("NextToken"):
                return shards
            arguments = {"NextToken": page["NextToken"]}

    def read_to_the_tip(self):
        for shard in self.shards():
            name = shard["ShardId"]
            if name not in self.iterators:
                answer = self.client.get_shard_iterator(
                    StreamName=self.stream, ShardId=name, ShardIteratorType="TRIM_HORIZON"
                )
                self.iterators[name] = answer["ShardIterator"]
            while self.iterators[name]:
                answer = self.client.get_records(ShardIterator=self.iterators[name])
                self.iterators[name] = answer.get("NextShardIterator")
                self._take(name, answer["Records"])
                if not answer["Records"] and answer.get("MillisBehindLatest", 0) == 0:
                    break

    def _take(self, shard, records):
        for record in records:
            self.raw[shard, record["SequenceNumber"]] = record["Data"]
        for record in iter_deaggregate_records(records, data_format="Boto3"):
            inner = record["kinesis"]
            aggregated = inner.get("aggregated", False)
            position = Position(shard, inner["sequenceNumber"], inner["subSequenceNumber"] if aggregated else 0)
            data = base64.b64decode(inner["data"]) if aggregated else inner["data"]
            assert position not in self.records, f"{position} was read twice"
            self.records[position] = Read(inner["partitionKey"], data)

    def until(self, positions):
        """Reads until all these positions have been read, then once more to the tip, for what should not be there."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self.read_to_the_tip()
            missing = set(positions) - set(self.records)
            if not missing:
                break
            assert time.monotonic() < deadline, (
                f"{len(missing)} of {len(positions)} acknowledged records are not in the stream, such as {min(missing)}"
            )
            time.sleep(0.1)
        self.read_to_the_tip()
        return self


def record(contract, key, data, *, ehk="", **headers):
    return contract.pb.Record(
        key=key,
        explicit_hash_key=ehk,
        data=data,
        headers=[contract.pb.Header(name=n.replace("_", "-"), value=v) for n, v in headers.items()],
    )


def stored(result):
    """The position that a result names; anything but `stored` is a failure."""
    assert result.WhichOneof("outcome") == "stored", f"not stored: {result}"
    where = result.stored
    assert where.attempts >= 1
    assert re.fullmatch(r"shardId-\d{12}", where.shard_id), where
    assert re.fullmatch(r"[1-9]\d*", where.sequence_number), where
    return Position(where.shard_id, where.sequence_number, where.sub_sequence_number)


def check(reader, run, sent, positions):
    """Each record lies where its answer says, byte for byte; nothing else of this run is there; keys are in order."""
    assert len(set(positions)) == len(positions), "two records were answered with one position"
    for number, (original, position) in enumerate(zip(sent, positions, strict=True)):
        read = reader.records[position]
        assert read.key == original.key, f"record {number} at {position}"
        assert read.data == original.data, f"record {number} at {position}: {len(read.data)} bytes of other content"
    ours = {position for position, read in reader.records.items() if read.key.startswith(run)}
    assert ours == set(positions), "records of this run that no answer names"
    by_key = collections.defaultdict(list)
    for original, position in zip(sent, positions, strict=True):
        by_key[original.key, original.explicit_hash_key].append(position)
    for key, places in by_key.items():
        assert len({p.shard for p in places}) == 1, f"{key} is spread over shards, which nobody split"
        order = [(int(p.sequence), p.sub) for p in places]
        assert order == sorted(order), f"{key} is out of order"


def website(contract, run, sessions, events):
    """Interleaved sessions, each a key of its own."""
    kinds = ("click", "order", "payment")
    return [
        record(
            contract,
            f"{run}session-{session}",
            f'{{"session":{session},"event":{event}}}'.encode(),
            type=kinds[event % len(kinds)],
            tenant=f"shop-{session % 5}",
            content_type="application/json",
        )
        for event in range(events)
        for session in range(sessions)
    ]


def test_put(contract, gateway, stream, kinesis, run):
    sent = website(contract, run, sessions=20, events=25)
    sent += [
        record(contract, f"{run}ключ-日本-😀", "naïve".encode(), type="click"),
        record(contract, f"{run}no-headers", b"bare"),
        record(contract, f"{run}empty", b""),
        record(contract, f"{run}binary", bytes(range(256)) * 400, type="click"),
        record(contract, run + "k" * (256 - len(run)), b"longest key"),
        record(contract, f"{run}aggregate-in-a-payload", MAGIC + b"not an aggregate"),
    ]
    response = gateway.Put(contract.pb.PutRequest(stream=stream, records=sent), timeout=PATIENCE)
    assert len(response.results) == len(sent)
    positions = [stored(result) for result in response.results]
    check(Reader(kinesis, stream).until(positions), run, sent, positions)


def test_records_lie_on_the_shard_of_their_hash(contract, gateway, stream, kinesis, run):
    sent = [record(contract, f"{run}{i}", b"by key") for i in range(40)]
    sent += [record(contract, f"{run}low", b"lowest", ehk="0")]
    sent += [record(contract, f"{run}high", b"highest", ehk=str(2**128 - 1))]
    response = gateway.Put(contract.pb.PutRequest(stream=stream, records=sent), timeout=PATIENCE)
    positions = [stored(result) for result in response.results]
    reader = Reader(kinesis, stream).until(positions)
    check(reader, run, sent, positions)
    ranges = {shard["ShardId"]: shard["HashKeyRange"] for shard in reader.shards()}
    for original, position in zip(sent, positions, strict=True):
        by_key = int.from_bytes(hashlib.md5(original.key.encode()).digest(), "big")
        wanted = int(original.explicit_hash_key or by_key)
        own = ranges[position.shard]
        assert int(own["StartingHashKey"]) <= wanted <= int(own["EndingHashKey"]), (original.key, position)


def test_headers_are_readable_with_the_published_schema(contract, gateway, stream, kinesis, run):
    sent = [record(contract, f"{run}{i}", b"x", type="order", tenant=f"öst-{i}", empty="") for i in range(10)]
    response = gateway.Put(contract.pb.PutRequest(stream=stream, records=sent), timeout=PATIENCE)
    positions = [stored(result) for result in response.results]
    reader = Reader(kinesis, stream).until(positions)
    identities = set()
    for original, position in zip(sent, positions, strict=True):
        blob = reader.raw[position.shard, position.sequence]
        body = blob[len(MAGIC) : -16]
        assert blob.startswith(MAGIC) and hashlib.md5(body).digest() == blob[-16:]
        aggregate = contract.aggregate.AggregatedRecord.FromString(body)
        member = aggregate.records[position.sub]
        assert aggregate.partition_key_table[member.partition_key_index] == original.key
        tags = [(tag.key, tag.value) for tag in member.tags]
        assert [t for t in tags if not t[0].startswith("hw-")] == [(h.name, h.value) for h in original.headers]
        # The identity that the gateway minted: trace id and span id, each once.
        [context] = [value for name, value in tags if name == "hw-t"]
        identities.add(base64.b64decode(context + "=" * (-len(context) % 4))[:24])
    assert len(identities) == len(sent)


def size(message):
    headers = sum(len(h.name) + len(h.value.encode()) for h in message.headers)
    return len(message.key.encode()) + len(message.data) + headers


class Pipeline:
    """A PutStream client that keeps within its credit."""

    def __init__(self, contract, stub, stream):
        self.pb = contract.pb
        self.requests = queue.SimpleQueue()
        self.answers = stub.PutStream(iter(self.requests.get, None), timeout=2 * PATIENCE)
        self.open = {}  # number -> batch
        self.results = {}  # number -> results
        self.most_open = 0
        self.requests.put(self.pb.PutStreamRequest(open=self.pb.PutStreamRequest.Open(stream=stream)))
        first = next(self.answers)
        assert first.WhichOneof("message") == "credit", f"the first answer must grant credit: {first}"
        self.credit = first.credit

    def receive(self):
        answer = next(self.answers)
        if answer.WhichOneof("message") == "credit":
            self.credit = answer.credit
            return
        results = answer.results
        assert results.number in self.open, f"an answer to no open batch: {results.number}"
        assert len(results.results) == len(self.open.pop(results.number))
        self.results[results.number] = list(results.results)

    def has_room(self, batch):
        unanswered = [r for open_batch in self.open.values() for r in open_batch] + batch
        return len(unanswered) <= self.credit.records and sum(map(size, unanswered)) <= self.credit.bytes

    def send(self, number, batch):
        while not self.has_room(batch):
            assert self.open, f"the credit allows not even one batch: {self.credit}"
            self.receive()
        self.open[number] = batch
        self.most_open = max(self.most_open, len(self.open))
        message = self.pb.PutStreamRequest.Batch(number=number, records=batch)
        self.requests.put(self.pb.PutStreamRequest(batch=message))

    def finish(self):
        self.requests.put(None)
        while self.open:
            self.receive()
        assert [a for a in self.answers if a.WhichOneof("message") == "results"] == [], "answered twice"
        assert self.answers.code() == grpc.StatusCode.OK
        return self.results


def test_put_stream(contract, gateway, stream, kinesis, run):
    sent = website(contract, run, sessions=30, events=60)
    batches = [sent[i : i + 50] for i in range(0, len(sent), 50)]
    pipeline = Pipeline(contract, gateway, stream)
    # Numbers are the client's choice.
    for number, batch in enumerate(batches):
        pipeline.send(1000 + 7 * number, batch)
    results = pipeline.finish()
    assert pipeline.most_open > 1, "nothing was pipelined"
    positions = [stored(result) for number in sorted(results) for result in results[number]]
    check(Reader(kinesis, stream).until(positions), run, sent, positions)


def test_several_clients_at_once(contract, gateway, stream, kinesis, run):
    def client(index):
        batch = website(contract, f"{run}client-{index}-", sessions=5, events=20)
        pipeline = Pipeline(contract, gateway, stream)
        for number in range(0, len(batch), 10):
            pipeline.send(number, batch[number : number + 10])
        results = pipeline.finish()
        return batch, [stored(result) for number in sorted(results) for result in results[number]]

    with futures.ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(client, range(4)))
    sent = [r for batch, _ in outcomes for r in batch]
    positions = [p for _, places in outcomes for p in places]
    check(Reader(kinesis, stream).until(positions), run, sent, positions)


def test_a_bad_record_fails_alone(contract, gateway, stream, kinesis, run):
    pb = contract.pb
    twice = record(contract, f"{run}twice", b"x", type="a")
    twice.headers.append(pb.Header(name="type", value="b"))
    bad = {
        "empty key": record(contract, "", b"x"),
        "257": record(contract, "k" * 257, b"x"),
        "hw-": record(contract, f"{run}reserved", b"x", hw_t="forged"),
        "Type": record(contract, f"{run}upper", b"x", Type="order"),
        "type": twice,
        "2049": record(contract, f"{run}long", b"x", type="v" * 2049),
        str(2**128): record(contract, f"{run}hash", b"x", ehk=str(2**128)),
    }
    good = [record(contract, f"{run}good-{i}", b"good") for i in range(len(bad))]
    mixed = [r for pair in zip(bad.values(), good, strict=True) for r in pair]
    response = gateway.Put(pb.PutRequest(stream=stream, records=mixed), timeout=PATIENCE)
    assert len(response.results) == len(mixed)
    for (what, _), result in zip(bad.items(), response.results[::2], strict=True):
        assert result.WhichOneof("outcome") == "error", f"{what} was taken: {result}"
        error = result.error
        assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", error.code), f"{what}: {error}"
        assert not error.retryable and not error.outcome_unknown, f"{what}: {error}"
        # The message names the value or what is wrong with it.
        plain = error.message.replace(",", "").replace("_", "")
        named = re.search("empty|at least|1 to 256", plain) if what == "empty key" else what in plain
        assert named, f"{what} is not named: {error.message}"
    positions = [stored(result) for result in response.results[1::2]]
    check(Reader(kinesis, stream).until(positions), run, good, positions)


def refusal(call):
    with pytest.raises(grpc.RpcError) as refused:
        call()
    return refused.value


def test_an_unknown_stream_is_not_found(contract, gateway, run):
    request = contract.pb.PutRequest(stream="no-such-stream", records=[record(contract, f"{run}a", b"x")])
    error = refusal(lambda: gateway.Put(request, timeout=PATIENCE))
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert "no-such-stream" in error.details()

    error = refusal(lambda: Pipeline(contract, gateway, "no-such-stream"))
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert "no-such-stream" in error.details()


@pytest.mark.parametrize("count", [0, 10_001])
def test_a_batch_over_the_limits_is_refused(contract, gateway, stream, run, count):
    records = [record(contract, f"{run}a", b"x")] * count
    error = refusal(lambda: gateway.Put(contract.pb.PutRequest(stream=stream, records=records), timeout=PATIENCE))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "10000" in error.details().replace(",", "").replace("_", "")
