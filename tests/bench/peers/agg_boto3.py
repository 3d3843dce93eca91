"""The usual Python way to put aggregated records: aws_kinesis_agg and boto3, one thread.

    agg_boto3.py ENDPOINT RECORDS BYTES [STREAM]
"""

import sys

import aws_kinesis_agg.aggregator
import boto3


def main(endpoint: str, records: int, size: int, stream: str = "null") -> None:
    client = boto3.client(
        "kinesis",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="bench",
        aws_secret_access_key="bench",
    )
    aggregator = aws_kinesis_agg.aggregator.RecordAggregator()
    waiting: list[dict] = []
    answered = 0

    def put() -> None:
        nonlocal answered
        answered += len(client.put_records(StreamName=stream, Records=waiting)["Records"])
        waiting.clear()

    def take(aggregate) -> None:
        if aggregate is None:
            return
        key, explicit_hash_key, data = aggregate.get_contents()
        entry = {"PartitionKey": key, "Data": data}
        if explicit_hash_key is not None:
            entry["ExplicitHashKey"] = explicit_hash_key
        waiting.append(entry)
        # As large as our own calls are by default: 5 MiB.
        if sum(len(entry["Data"]) for entry in waiting) > 4 << 20:
            put()

    data = b"x" * size
    for number in range(records):
        take(aggregator.add_user_record(f"session-{number % 1000:04}", data))
    take(aggregator.clear_and_get())
    if waiting:
        put()
    if records and not answered:
        raise SystemExit("the sink has answered nothing")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
