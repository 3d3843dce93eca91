"""The golden vectors are current, the library reads them as they say, and a wrong vector is noticed."""

import base64
import io
import json
import pathlib

import golden
import pytest

COMMITTED = pathlib.Path(__file__).resolve().parents[2] / "record" / "tests" / "golden" / "kpl.json"
VECTORS = json.loads(COMMITTED.read_text(encoding="utf-8"))


def test_committed_vectors_are_current():
    assert COMMITTED.read_text(encoding="utf-8") == golden.render(golden.vectors()), (
        "renew with: golden.py vectors > record/tests/golden/kpl.json"
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_library_reads_the_vector(vector):
    assert golden.faults(vector) == []


def test_known_differences_name_vectors():
    assert set(golden.KNOWN_DIFFERENCES) <= {v["name"] for v in VECTORS}


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["members"]], ids=lambda v: v["name"])
def test_a_changed_member_is_noticed(vector):
    for field, value in (("partition_key", "other"), ("data_base64", base64.b64encode(b"other").decode())):
        members = [dict(m) for m in vector["members"]]
        members[-1][field] = value
        assert golden.faults({**vector, "members": members})
    assert golden.faults({**vector, "members": vector["members"][:-1]})


def test_a_changed_byte_is_noticed():
    vector = VECTORS[0]
    blob = bytearray(base64.b64decode(vector["blob_base64"]))
    blob[len(blob) // 2] ^= 1
    assert golden.faults({**vector, "blob_base64": base64.b64encode(blob).decode()})


def test_encode_then_decode():
    lines = [
        {"partition_key": "a", "explicit_hash_key": None, "data": base64.b64encode(b"1").decode()},
        {"partition_key": "é", "data": base64.b64encode(b"2").decode()},
        None,
        {"partition_key": "b", "explicit_hash_key": "7", "data": ""},
    ]
    blobs = io.StringIO()
    golden.encode_lines([json.dumps(line) if line else "" for line in lines], blobs)
    members = io.StringIO()
    golden.decode_lines(blobs.getvalue().splitlines(), members)
    read = [json.loads(line) for line in members.getvalue().splitlines()]
    assert [(m["blob"], m["sub"], m["partition_key"], m["explicit_hash_key"], m["data"]) for m in read] == [
        (0, 0, "a", None, "MQ=="),
        (0, 1, "é", None, "Mg=="),
        (1, 0, "b", "7", ""),
    ]


@pytest.mark.parametrize("line", ["not json", "{}", '{"partition_key":"a","data":"!"}', "[]"])
def test_bad_members_name_their_line(line):
    with pytest.raises(golden.BadInput, match="line 2"):
        golden.encode_lines(['{"partition_key":"a","data":""}', line], io.StringIO())


def test_an_index_out_of_range_is_an_error():
    message = golden.messages_pb2.AggregatedRecord(partition_key_table=["a"])
    message.records.add(partition_key_index=0, data=b"good")
    message.records.add(partition_key_index=9, data=b"bad")
    with pytest.raises(golden.BadInput, match="after 1 members"):
        golden.decode(golden.seal(message))
