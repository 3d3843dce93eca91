"""The gateway before other emulators: they read with decoders of their own what it puts, and boto3 reads it back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager

from aws_kinesis_agg import MAGIC
from aws_kinesis_agg.deaggregator import messages_pb2

from .harness import BIN, LOGS, check, client, eventually, process, run, say, tail
from .servers import free_port, kinesis_local, ministack

STREAM = "inbound"
# Small ones fill aggregates, large ones are sent from where they are.
RECORDS = [(f"key-{number % 50}", f"{number}-" + "x" * (30_000 if number % 40 == 0 else 20)) for number in range(2_000)]


@contextmanager
def gateway(name: str, endpoint: str):
    listen = f"127.0.0.1:{free_port()}"
    settings = {"AWS_ENDPOINT_URL_KINESIS": endpoint, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test", "HEADWORKS_GATEWAY_LISTEN": listen, "HEADWORKS_GATEWAY_STREAMS": STREAM}
    with process(name, [BIN / "headworks-gateway"], env={**os.environ, **settings}) as running:
        def listens() -> bool:
            check(running.poll() is None, f"the gateway ended with {running.returncode}:\n{tail(name)}")
            return f"address={listen}" in tail(name, 100)

        eventually("the gateway listens", listens)
        yield f"http://{listen}"


def read(kinesis) -> Counter:
    """How often each key and payload is on the stream."""
    found: Counter = Counter()
    for shard in kinesis.list_shards(StreamName=STREAM)["Shards"]:
        iterator = kinesis.get_shard_iterator(
            StreamName=STREAM, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        while True:
            answer = kinesis.get_records(ShardIterator=iterator)
            for record in answer["Records"]:
                data = record["Data"]
                check(data.startswith(MAGIC), f"no aggregate: {data[:40]!r}")
                message = messages_pb2.AggregatedRecord.FromString(data[4:-16])
                for member in message.records:
                    found[message.partition_key_table[member.partition_key_index], member.data.decode()] += 1
            iterator = answer["NextShardIterator"]
            if not answer["Records"]:
                break
    return found


def before(name: str, server, encoding: str):
    """That the emulator stores what is put, in the encoding that it is known to take."""
    def scenario() -> None:
        with server() as endpoint:
            kinesis = client("kinesis", endpoint)
            kinesis.create_stream(StreamName=STREAM, ShardCount=2)
            eventually("the stream is active", lambda: kinesis.describe_stream_summary(StreamName=STREAM)
                       ["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE")
            log = f"gateway-{name}"
            with gateway(log, endpoint) as address:
                lines = "\n".join(json.dumps({"key": key, "data": data}) for key, data in RECORDS)
                with (LOGS / f"send-{name}.log").open("wb") as output:
                    sent = subprocess.run([BIN / "headworks", "send"], input=lines.encode(), stdout=output, stderr=output,
                                          env={**os.environ, "HEADWORKS_GATEWAY": address}, timeout=120, check=False)
                check(sent.returncode == 0, f"headworks send ended with {sent.returncode}:\n{tail(f'send-{name}')}")
            found = read(kinesis)
            check(found == Counter(RECORDS),
                  f"{len(Counter(RECORDS) - found)} of {len(RECORDS)} are missing, {len(found - Counter(RECORDS))} too many")
            took = "JSON" if "refused in CBOR" in tail(log, 1_000) else "CBOR"
            say(f"  {name} took {took}")
            check(took == encoding, f"{name} is known to take {encoding}")

    return scenario


SCENARIOS = {
    "kinesis-local-behind-the-gateway": before("kinesis-local", kinesis_local, "CBOR"),
    "ministack-behind-the-gateway": before("ministack", ministack, "JSON"),
}

if __name__ == "__main__":
    sys.exit(run(SCENARIOS))
