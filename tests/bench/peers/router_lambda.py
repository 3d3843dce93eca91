"""A router as it is usually written for Lambda in Python: aws_kinesis_agg takes aggregates apart, a field of the JSON
payload says which stream a record is for, boto3 puts each record on its own.

    router_lambda.py ENDPOINT EVENT TIMES

EVENT is a file with the event, as `benches/router.rs` writes it; it is handled TIMES times. Prints how many records
were put.
"""

import base64
import json
import sys
from pathlib import Path

import boto3
from aws_kinesis_agg.deaggregator import iter_deaggregate_records

# The service's limits for one call.
MOST_ENTRIES = 500
MOST_BYTES = 5 << 20


class Destination:
    """A stream, and what waits to be put there."""

    def __init__(self, client, stream: str) -> None:
        self.client = client
        self.stream = stream
        self.put = 0
        self._waiting: list[dict] = []
        self._bytes = 0

    def add(self, key: str, data: bytes) -> None:
        size = len(key) + len(data)
        if len(self._waiting) == MOST_ENTRIES or self._bytes + size > MOST_BYTES:
            self.flush()
        self._waiting.append({"PartitionKey": key, "Data": data})
        self._bytes += size

    def flush(self) -> None:
        while self._waiting:
            answer = self.client.put_records(StreamName=self.stream, Records=self._waiting)
            pairs = list(zip(self._waiting, answer["Records"], strict=True))
            self._waiting = [entry for entry, result in pairs if "ErrorCode" in result]
            self.put += len(pairs) - len(self._waiting)
        self._bytes = 0


class Function:
    """What a deployment package would hold."""

    def __init__(self, endpoint: str) -> None:
        client = boto3.client(
            "kinesis",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="bench",
            aws_secret_access_key="bench",
        )
        self.default = Destination(client, "out-0")
        self.by_type = {"t1": Destination(client, "out-1")}

    def handle(self, event: dict, _context: object) -> dict:
        for record in iter_deaggregate_records(event["Records"]):
            found = record["kinesis"]
            data = base64.b64decode(found["data"])
            kind = json.loads(data).get("type")
            self.by_type.get(kind, self.default).add(found["partitionKey"], data)
        for destination in (self.default, *self.by_type.values()):
            destination.flush()
        return {"batchItemFailures": []}

    def put(self) -> int:
        return self.default.put + sum(destination.put for destination in self.by_type.values())


def main(endpoint: str, path: str, times: int) -> None:
    text = Path(path).read_bytes()
    function = Function(endpoint)
    for _ in range(times):
        # Lambda's own runtime parses the event, too.
        function.handle(json.loads(text), None)
    if times and not function.put():
        raise SystemExit("no record was put")
    print(function.put())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
