"""The gateway before other emulators. Of Kinesis: they read with decoders of their own what it puts, and boto3 reads it
back. Of KMS: what the gateway encrypts under a key of theirs, boto3 and a few lines of Python reveal.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager

from aws_kinesis_agg import MAGIC
from aws_kinesis_agg.deaggregator import messages_pb2
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .harness import BIN, KINESIS, LOGS, WORK, check, client, eventually, process, run, say, tail
from .servers import free_port, kinesis_local, ministack
from .streams import new_stream

STREAM = "inbound"
# Small ones fill aggregates, large ones are sent from where they are.
RECORDS = [(f"key-{number % 50}", f"{number}-" + "x" * (30_000 if number % 40 == 0 else 20)) for number in range(2_000)]


@contextmanager
def gateway(name: str, kinesis: str, *arguments, **settings: str):
    listen = f"127.0.0.1:{free_port()}"
    usual = {"AWS_ENDPOINT_URL_KINESIS": kinesis, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test",
             "AWS_SECRET_ACCESS_KEY": "test", "HEADWORKS_GATEWAY_LISTEN": listen}
    environment = {**os.environ, **usual, **settings}
    with process(name, [BIN / "headworks-gateway", *arguments], env=environment) as running:
        def listens() -> bool:
            check(running.poll() is None, f"the gateway ended with {running.returncode}:\n{tail(name)}")
            return f"address={listen}" in tail(name, 100)

        eventually("the gateway listens", listens)
        yield f"http://{listen}"


def send(name: str, address: str, records: list[tuple[str, str]]) -> None:
    lines = "\n".join(json.dumps({"key": key, "data": data}) for key, data in records)
    with (LOGS / f"{name}.log").open("wb") as output:
        sent = subprocess.run([BIN / "headworks", "send"], input=lines.encode(), stdout=output, stderr=output,
                              env={**os.environ, "HEADWORKS_GATEWAY": address}, timeout=120, check=False)
    check(sent.returncode == 0, f"headworks send ended with {sent.returncode}:\n{tail(name)}")


def read(kinesis, stream: str) -> Counter:
    """How often each key and payload is on the stream."""
    found: Counter = Counter()
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        iterator = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
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
            with gateway(log, endpoint, HEADWORKS_GATEWAY_STREAMS=STREAM) as address:
                send(f"send-{name}", address, RECORDS)
            found = read(kinesis, STREAM)
            check(found == Counter(RECORDS),
                  f"{len(Counter(RECORDS) - found)} of {len(RECORDS)} are missing, {len(found - Counter(RECORDS))} too many")
            took = "JSON" if "refused in CBOR" in tail(log, 1_000) else "CBOR"
            say(f"  {name} took {took}")
            check(took == encoding, f"{name} is known to take {encoding}")

    return scenario


def reveal(text: str, kms) -> str:
    """The value behind an envelope, by its description in headworks_record::protected."""
    check(text.startswith("hwenc1:"), f"no envelope: {text[:40]!r}")
    text = text.removeprefix("hwenc1:")
    envelope = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    check(envelope[0] == 1, f"version {envelope[0]}")
    at, fields = 1, []
    for width in (1, 2, 2):
        length = int.from_bytes(envelope[at:at + width], "big")
        fields.append(envelope[at + width:at + width + length])
        at += width + length
    key, _, wrapped = fields
    plain = kms.decrypt(CiphertextBlob=wrapped, EncryptionContext={"headworks:key": key.decode()})["Plaintext"]
    return AESGCM(plain).decrypt(envelope[at:at + 12], envelope[at + 12:], envelope[:at]).decode()


def protects_with_kms() -> None:
    stream = new_stream("protected")
    with ministack("kms") as endpoint:
        kms = client("kms", endpoint)
        arn = kms.create_key()["KeyMetadata"]["Arn"]
        keys, config = WORK / "protect.toml", WORK / "gateway.toml"
        keys.write_text(f'[[keys]]\nid = "cards"\nuse = "encrypt"\nkms = "{arn}"\n')
        config.write_text(f'[[streams]]\nname = "{stream}"\n[streams.protect]\nkeys = "{keys}"\n'
                          '[[streams.protect.rules]]\npointer = "/card"\naction = "encrypt"\nkey = "cards"\n')
        with gateway("gateway-kms", KINESIS, "--config", config, AWS_ENDPOINT_URL_KMS=endpoint) as address:
            cards = {f"key-{number}": {"id": number, "card": f"4111-{number}"} for number in range(50)}
            send("send-kms", address, [(key, json.dumps(data)) for key, data in cards.items()])
        found = read(client("kinesis", KINESIS), stream)
        check(len(found) == len(cards), f"{len(found)} of {len(cards)} records are stored")
        for key, data in found:
            stored = json.loads(data)
            check("4111" not in data, f"the value of {key} is readable")
            stored["card"] = json.loads(reveal(stored["card"], kms))
            check(stored == cards[key], f"{key} reveals {stored}")


SCENARIOS = {
    "kinesis-local-behind-the-gateway": before("kinesis-local", kinesis_local, "CBOR"),
    "ministack-behind-the-gateway": before("ministack", ministack, "JSON"),
    "kms-of-ministack": protects_with_kms,
}

if __name__ == "__main__":
    sys.exit(run(SCENARIOS))
