"""Ours, the Java KCL and aws_kinesis_agg on the same stream, one after the other: CPU per record handled.

    with-pipeline python consumer_peers.py RECORDS [CLASSPATH]

Prints one JSON object a line: peer, bytes, cpu_ns_per_record, rss_mib. Each is measured twice, with a few records
and with all of them; the difference is what a record costs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import boto3

from bench import usage

HERE = Path(__file__).resolve().parent
KINESIS, DYNAMODB = os.environ["HEADWORKS_TEST_KINESIS"], os.environ["HEADWORKS_TEST_DYNAMODB"]
PROGRAMS = Path(os.environ["HEADWORKS_BENCH_PROGRAMS"])
os.environ["AWS_ENDPOINT_URL_KINESIS"], os.environ["AWS_ENDPOINT_URL_DYNAMODB"] = KINESIS, DYNAMODB


def ours(stream: str, records: int, run: str) -> list[str]:
    return [str(PROGRAMS / "count"), stream, f"ours-{run}", str(records)]


def deaggregator(stream: str, records: int, run: str) -> list[str]:
    return [sys.executable, str(HERE / "peers" / "deagg_boto3.py"), KINESIS, stream, str(records)]


def kcl(classpath: str):
    def command(stream: str, records: int, run: str) -> list[str]:
        return [
            "java", "-cp", classpath, "interop.Kcl", "mode=fanout", f"stream={stream}", f"application=kcl-{run}",
            f"kinesis={KINESIS}", f"dynamodb={DYNAMODB}", f"stop-after={records}", "deadline=300", "quiet=1",
        ]

    return command


def main(records: int, classpath: str | None) -> None:
    kinesis = boto3.client("kinesis", endpoint_url=KINESIS)
    for size in (200, 1024):
        stream = f"bench-{size}"
        kinesis.create_stream(StreamName=stream, ShardCount=1)
        kinesis.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
        fill = [sys.executable, str(HERE / "peers" / "agg_boto3.py"), KINESIS, str(records), str(size), stream]
        subprocess.run(fill, check=True)
        peers = {"ours": ours, "aws_kinesis_agg + boto3": deaggregator}
        if classpath:
            peers["Java KCL"] = kcl(classpath)
        for name, command in peers.items():
            few = records // 20
            begin, _ = usage(command(stream, few, f"{size}-few"))
            end, rss = usage(command(stream, records, f"{size}-all"))
            cpu = (end - begin) / (records - few) * 1e9
            print(json.dumps({"peer": name, "bytes": size, "cpu_ns_per_record": cpu, "rss_mib": rss}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
