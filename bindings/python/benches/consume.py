"""What a record costs a Python process that reads it: the package beside aws_kinesis_agg and boto3.

    with-pipeline PYTHON consume.py RECORDS WHEEL_PYTHON

PYTHON is the interpreter with boto3 and aws_kinesis_agg (tests/python/venv.sh), WHEEL_PYTHON the one that
bindings/python/build.sh --release prints. Both read the same aggregates from the same embedded stream, one after the
other, and look at each record's key and data. A process's CPU seconds are measured with a few records and with all of
them; the difference is what a record costs, whatever else the machine does. Prints one JSON object a line.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).resolve().parents[3] / "tests" / "bench" / "peers"
PEER = "aws_kinesis_agg + boto3"
# What our own writer seals by default.
AGGREGATE_BYTES = 100 << 10


def handle(stream: str, application: str, wanted: int) -> None:
    """Ours: every record as an object, done when it was looked at."""
    import headworks

    endpoints = {
        "kinesis_endpoint_url": os.environ["HEADWORKS_TEST_KINESIS"],
        "dynamodb_endpoint_url": os.environ["HEADWORKS_TEST_DYNAMODB"],
    }
    seen = bytes_seen = 0
    with headworks.Consumer(application, stream, start="TRIM_HORIZON", region="us-east-1", **endpoints) as consumer:
        for record in consumer:
            seen += 1
            bytes_seen += len(record.key) + len(record.data)
            record.ack()
            if seen == wanted:
                break
    if not bytes_seen:
        raise SystemExit("the stream is empty")


def fill(kinesis, stream: str, records: int, size: int) -> None:
    """Aggregates of the KPL's kind, a thousand keys."""
    from aws_kinesis_agg.aggregator import RecordAggregator

    aggregator, data = RecordAggregator(max_size=AGGREGATE_BYTES), b"x" * size

    def put(aggregate) -> None:
        if aggregate is not None:
            key, _, blob = aggregate.get_contents()
            kinesis.put_record(StreamName=stream, PartitionKey=key, Data=blob)

    for number in range(records):
        put(aggregator.add_user_record(f"session-{number % 1000:04}", data))
    put(aggregator.clear_and_get())


def cpu_seconds(command: list[str]) -> float:
    with subprocess.Popen(command) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


def main(records: int, wheel_python: str) -> None:
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.setdefault(name, "bench")
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    endpoint, few = os.environ["HEADWORKS_TEST_KINESIS"], max(records // 10, 1)
    kinesis = boto3.client("kinesis", endpoint_url=endpoint)
    for case, size in (("200B objects", 200), ("1KB objects", 1024)):
        stream = f"python-{size}"
        kinesis.create_stream(StreamName=stream, ShardCount=1)
        kinesis.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
        fill(kinesis, stream, records, size)

        def ours(count: int) -> list[str]:
            return [wheel_python, str(Path(__file__).resolve()), "handle", stream, f"bench-{size}-{count}", str(count)]

        def theirs(count: int) -> list[str]:
            return [sys.executable, str(PEERS / "deagg_boto3.py"), endpoint, stream, str(count)]

        mine, other = (
            (cpu_seconds(command(records)) - cpu_seconds(command(few))) / (records - few) for command in (ours, theirs)
        )
        for metric, unit, value, against in (
            ("cpu_ns_per_record", "ns", mine * 1e9, other * 1e9),
            ("records_per_s_per_core", "records/s", 1 / mine, 1 / other),
        ):
            figure = {
                "part": "python", "case": case, "metric": metric, "value": value, "unit": unit,
                "against": PEER, "against_value": against, "ratio": value / against,
            }
            print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "handle":
        handle(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main(int(sys.argv[1]), sys.argv[2])
