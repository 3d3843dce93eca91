"""The producer."""

import re

import pytest

import headworks
from headworks import errors


@pytest.mark.parametrize("endpoint", ["", "127.0.0.1", "ftp://127.0.0.1:1", "http://a b"])
def test_a_bad_endpoint_is_named(endpoint):
    with pytest.raises(errors.InvalidInput) as caught, headworks.Producer(endpoint):
        pass
    assert repr(endpoint).strip("'") in str(caught.value) and "http://127.0.0.1:4400" in str(caught.value)


def test_a_bad_option_is_named():
    with pytest.raises(errors.InvalidInput, match="batch_records is 0"), headworks.Producer(batch_records=0):
        pass


def test_no_gateway_there():
    producer = headworks.Producer("http://127.0.0.1:9", connect_timeout=0.3)
    with pytest.raises(errors.Unavailable) as caught:
        producer.put(headworks.Record("k", b""))
    assert caught.value.code == "gateway-unreachable" and caught.value.retryable
    assert "http://127.0.0.1:9" in str(caught.value)


def test_a_stream_that_the_gateway_does_not_serve(gateway):
    with pytest.raises(errors.HeadworksError, match="no-such-stream"), headworks.Producer(gateway, "no-such-stream"):
        pass


def test_put_says_where_the_record_is(gateway, stream, run):
    with headworks.Producer(gateway, stream) as producer:
        stored = producer.put(headworks.Record(run, b"x"))
        assert re.fullmatch(r"shardId-\d{12}", stored.shard)
        assert stored.sequence_number.isdigit() and stored.sub_sequence_number >= 0 and stored.attempts >= 1
        assert stored.shard in repr(stored)
        assert producer.put_many([]) == []
        producer.flush()
        assert producer.close() == {"stored": 1, "failed": 0, "unknown": 0, "abandoned": 0}
        with pytest.raises(errors.Closed):
            producer.put(headworks.Record(run, b"late"))


def test_one_bad_record_hides_no_answer(gateway, run):
    records = [headworks.Record(run, b"a"), headworks.Record(run, bytes(11 << 20)), headworks.Record(run, b"c")]
    with headworks.Producer(gateway) as producer:
        first, second, third = producer.put_many(iter(records))
        with pytest.raises(errors.InvalidInput):
            producer.put(records[1])
        with pytest.raises(TypeError):
            producer.put_many([b"no record"])
        with pytest.raises(errors.InvalidInput, match="W3C"):
            producer.put(records[0], traceparent="00-abc")
    assert isinstance(first, headworks.Receipt) and isinstance(third, headworks.Receipt)
    assert isinstance(second, errors.InvalidInput)
    assert second.code == "record-too-large" and not second.outcome_unknown
