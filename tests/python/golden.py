#!/usr/bin/env python3
"""The KPL's aggregated format as PyPI's aws_kinesis_agg sees it, for tests of our codec in both directions.

    golden.py decode    aggregates (base64, one per line) -> members, one JSON object per line:
                        {"blob", "sub", "partition_key", "explicit_hash_key", "data"}; "blob" counts the input
                        lines from 0, "data" is base64. What the library takes for a plain record gives
                        {"blob", "raw"}. An aggregate of no members gives no line.
    golden.py encode    members as JSON lines {"partition_key", "explicit_hash_key", "data"} -> aggregates,
                        base64, one per line. An empty line ends an aggregate.
    golden.py vectors   the golden vectors, as committed in record/tests/golden/kpl.json
    golden.py check FILE...   the library reads each vector of these files as the file says

Exit codes: 0 fine, 1 a vector is not as it should be, 2 bad input (the message names the line).
"""

import argparse
import base64
import binascii
import contextlib
import hashlib
import io
import json
import sys

import aws_kinesis_agg
# messages_pb2 can be imported only by way of a module that puts the package's directory on the path.
from aws_kinesis_agg.aggregator import RecordAggregator, messages_pb2
from aws_kinesis_agg.deaggregator import iter_deaggregate_records

# Where the library differs from the format, by the vector's name.
KNOWN_DIFFERENCES = {
    # It looks up index 0 for a member that has no explicit hash key, once any member of the aggregate has one.
    "mixed-explicit-hash-keys": "gives members without an explicit hash key the first one of the table",
    # It wants at least one byte between the magic and the MD5.
    "empty-protobuf": "takes an empty aggregate for a plain record",
}


class BadInput(Exception):
    pass


def decode(blob):
    """The members of an aggregate as (partition key, explicit hash key or None, data), or None for a plain
    record. Members after an unreadable one are missing and raise BadInput: the library only prints that."""
    record = {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "sequenceNumber": "0",
            "approximateArrivalTimestamp": 0,
            "partitionKey": "a",
            "data": base64.b64encode(blob),
        }
    }
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        records = list(iter_deaggregate_records([record]))
    if said.getvalue():
        raise BadInput(f"the library gave up after {len(records)} members: {said.getvalue().splitlines()[0]}")
    if len(records) == 1 and not records[0]["kinesis"].get("aggregated"):
        return None
    return [
        (r["kinesis"]["partitionKey"], r["kinesis"]["explicitHashKey"], base64.b64decode(r["kinesis"]["data"]))
        for r in records
    ]


def encode(members):
    """One aggregate of members (partition key, explicit hash key or None, data)."""
    aggregator = RecordAggregator()
    limit = aws_kinesis_agg.MAX_BYTES_PER_RECORD
    for number, (key, explicit_hash_key, data) in enumerate(members):
        try:
            full = aggregator.add_user_record(key, data, explicit_hash_key) is not None
        except ValueError:
            full = True
        if full:
            raise BadInput(f"member {number} does not fit into the library's aggregate of {limit} bytes; send fewer")
    _, _, blob = aggregator.clear_and_get().get_contents()
    return blob


def seal(message):
    """An aggregate of a protobuf message that the library's aggregator cannot build itself."""
    body = message.SerializeToString()
    return aws_kinesis_agg.MAGIC + body + hashlib.md5(body).digest()


def vectors():
    def vector(name, blob, members):
        return {
            "name": name,
            "blob_base64": base64.b64encode(blob).decode(),
            "members": [
                {"partition_key": key, "explicit_hash_key": ehk, "data_base64": base64.b64encode(data).decode()}
                for key, ehk, data in members
            ],
        }

    def encoded(name, members):
        return vector(name, encode(members), members)

    highest = str(2**128 - 1)
    yield encoded("single", [("session-1", None, b'{"type":"order"}')])
    # More than 127 keys, so that indexes take two bytes.
    yield encoded("many-keys", [(f"session-{i}", None, f"payload {i}".encode()) for i in range(300)])
    yield encoded("repeated-keys", [(f"session-{i % 3}", None, bytes([i])) for i in range(50)])
    yield encoded(
        "explicit-hash-keys",
        [("a", "0", b"lowest"), ("b", highest, b"highest"), ("c", "0", b"lowest again"), ("a", "1", b"one")],
    )
    yield encoded(
        "mixed-explicit-hash-keys", [("a", "17", b"with"), ("b", None, b"without"), ("c", "18", b"with another")]
    )
    yield encoded("empty-data", [("a", None, b""), ("b", None, b"not empty"), ("a", None, b"")])
    yield encoded("all-bytes", [("a", None, bytes(range(256)))])
    yield encoded(
        "unicode-keys",
        # The last two look alike and are two keys.
        [(key, None, key.encode()) for key in ("ключ", "日本語", "clé-😀", "e\u0301", "\u00e9")],
    )
    yield encoded("longest-key", [("k" * 256, None, b"ascii"), ("😀" * 256, None, b"1,024 bytes of UTF-8")])
    # A payload that is itself an aggregate is data.
    yield encoded("nested", [("outer", None, encode([("inner", None, b"data")]))])
    # Lengths of three varint bytes.
    yield encoded("seventy-kilobytes", [("big", None, bytes(range(250)) * 280)])

    # Legal, though no library writes it: nothing is delivered.
    yield vector("zero-members", seal(messages_pb2.AggregatedRecord(partition_key_table=["unused"])), [])
    yield vector("empty-protobuf", seal(messages_pb2.AggregatedRecord()), [])

    # The KPL's tags, which its readers skip.
    tagged = messages_pb2.AggregatedRecord(partition_key_table=["a"])
    for number in range(2):
        record = tagged.records.add(partition_key_index=0, data=f"tagged {number}".encode())
        record.tags.add(key="type", value="order")
        record.tags.add(key="tenant", value="öst")
    yield vector("tags", seal(tagged), [("a", None, b"tagged 0"), ("a", None, b"tagged 1")])


def render(all_vectors):
    """One vector per line, so that a change shows as one."""
    lines = ",\n".join(json.dumps(v, ensure_ascii=False, separators=(",", ":")) for v in all_vectors)
    return f"[\n{lines}\n]\n"


def show(member):
    key, explicit_hash_key, data = member
    return f"key {key!r}, hash key {explicit_hash_key}, {len(data)} bytes beginning {data[:16]!r}"


def faults(vector):
    """What the library reads otherwise than the vector says; known differences must be there."""
    name = vector["name"]
    blob = base64.b64decode(vector["blob_base64"], validate=True)
    expected = [
        (m["partition_key"], m["explicit_hash_key"], base64.b64decode(m["data_base64"], validate=True))
        for m in vector["members"]
    ]
    try:
        actual = decode(blob)
    except BadInput as error:
        return [f"{name}: {error}"]
    if name == "empty-protobuf":
        return [] if actual is None and not expected else [f"{name}: the known difference is gone"]
    if actual is None:
        return [f"{name}: the library takes it for a plain record"]
    if name == "mixed-explicit-hash-keys":
        first = next(ehk for _, ehk, _ in expected if ehk is not None)
        expected = [(key, first if ehk is None else ehk, data) for key, ehk, data in expected]
    if len(actual) != len(expected):
        return [f"{name}: {len(actual)} members, expected {len(expected)}"]
    return [
        f"{name}: member {i}: read {show(a)}; expected {show(e)}"
        for i, (a, e) in enumerate(zip(actual, expected, strict=True))
        if a != e
    ]


def from_base64(text, where):
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BadInput(f"{where}: not base64: {error}") from None


def decode_lines(source, sink):
    for number, line in enumerate(source):
        where = f"line {number + 1}"
        blob = from_base64(line.strip(), where)
        try:
            members = decode(blob)
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None
        if members is None:
            print(json.dumps({"blob": number, "raw": base64.b64encode(blob).decode()}), file=sink)
            continue
        for sub, (key, explicit_hash_key, data) in enumerate(members):
            member = {
                "blob": number,
                "sub": sub,
                "partition_key": key,
                "explicit_hash_key": explicit_hash_key,
                "data": base64.b64encode(data).decode(),
            }
            print(json.dumps(member, ensure_ascii=False), file=sink)


def encode_lines(source, sink):
    members = []

    def flush():
        if members:
            print(base64.b64encode(encode(members)).decode(), file=sink)
            members.clear()

    for number, line in enumerate(source, start=1):
        if not line.strip():
            flush()
            continue
        where = f"line {number}"
        try:
            member = json.loads(line)
            key, data = member["partition_key"], member["data"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise BadInput(f"{where}: not a member with partition_key and data: {error!r}") from None
        members.append((key, member.get("explicit_hash_key"), from_base64(data, where)))
    flush()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("decode", "encode", "vectors"):
        commands.add_parser(name)
    commands.add_parser("check").add_argument("files", nargs="+", metavar="FILE")
    options = parser.parse_args(arguments)

    # Keys are UTF-8 whatever the locale.
    sys.stdin.reconfigure(encoding="utf-8")
    sys.stdout.reconfigure(encoding="utf-8")
    try:
        if options.command == "decode":
            decode_lines(sys.stdin, sys.stdout)
        elif options.command == "encode":
            encode_lines(sys.stdin, sys.stdout)
        elif options.command == "vectors":
            sys.stdout.write(render(vectors()))
        else:
            found = []
            for path in options.files:
                with open(path, encoding="utf-8") as file:
                    loaded = json.load(file)
                found += [fault for vector in loaded for fault in faults(vector)]
                print(f"{path}: {len(loaded)} vectors", file=sys.stderr)
            for fault in found:
                print(fault)
            return 1 if found else 0
    except BadInput as error:
        print(f"golden: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
