"""The usual Python way to read aggregated records: boto3 GetRecords and aws_kinesis_agg, one thread.

    deagg_boto3.py ENDPOINT STREAM RECORDS
"""

import sys

import boto3
from aws_kinesis_agg import deaggregator


def main(endpoint: str, stream: str, wanted: int) -> None:
    client = boto3.client("kinesis", endpoint_url=endpoint)
    shard = client.list_shards(StreamName=stream)["Shards"][0]["ShardId"]
    iterator = client.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    seen = 0
    while seen < wanted:
        page = client.get_records(ShardIterator=iterator, Limit=100)
        iterator = page["NextShardIterator"]
        for _ in deaggregator.iter_deaggregate_records(page["Records"], data_format="Boto3"):
            seen += 1


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
