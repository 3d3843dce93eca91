"""What several files share."""

import datetime
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import headworks

PATIENCE = 60.0  # seconds until a condition must hold
BINDING = pathlib.Path(__file__).resolve().parents[3] / "bindings" / "python"
TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]")
UTC = datetime.UTC


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


def put_in_order(gateway, stream, run, count):
    """All on one shard, so that their order is one; in as few Kinesis records as the gateway likes."""
    records = [headworks.Record(f"{run}-{i:04}", i.to_bytes(2), explicit_hash_key=0) for i in range(count)]
    with headworks.Producer(gateway, stream) as producer:
        stored = producer.put_many(records)
    assert all(isinstance(answer, headworks.Receipt) for answer in stored), stored
    return [record.key for record in records]


SCRIPTS = []


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
