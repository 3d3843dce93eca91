"""Checkpoints."""

import itertools
import threading

import pytest

import headworks
from support import PATIENCE, collect, is_mine, put_in_order


@pytest.mark.parametrize("way", ["ack", "checkpoint"])
def test_a_second_consumer_resumes_exactly_after(gateway, stream, aws, run, way):
    keys = put_in_order(gateway, stream, run, 300)

    def read(count, unacknowledged=0):
        """The keys of the next records of this test: some acknowledged, then some that are not."""
        taken = []
        with headworks.Consumer(run, stream, **aws) as consumer:
            for record in consumer:
                mine = is_mine(record, run)
                if mine:
                    taken.append(record.key)
                if way == "ack" and not (mine and len(taken) > count):
                    record.ack()
                if way == "checkpoint" and mine and len(taken) == count:
                    assert consumer.checkpoint() >= 1
                if len(taken) == count + unacknowledged:
                    break
        return taken

    # In the middle of an aggregate, and again in it, and to the end.
    assert read(37, unacknowledged=5) == keys[:42]
    assert read(1) == keys[37:38]
    assert read(100, unacknowledged=1) == keys[38:139]
    assert read(162) == keys[138:]


def test_acknowledging_out_of_order_holds_the_checkpoint(gateway, stream, aws, run):
    keys = put_in_order(gateway, stream, run, 10)
    with headworks.Consumer(run, stream, **aws) as consumer:
        mine = []
        for record in consumer:
            if is_mine(record, run):
                mine.append(record)
            else:
                record.ack()
            if len(mine) == len(keys):
                break
        assert [record.key for record in mine] == keys
        for record in reversed(mine):
            if record.key != keys[4]:
                assert record.ack()
        assert not mine[0].ack(), "acknowledged twice"
    assert not mine[4].ack(), "given back when the consumer closed"
    with headworks.Consumer(run, stream, **aws) as consumer:
        assert [record.key for record in collect(consumer, run, 6)] == keys[4:]


def test_a_closing_consumer_waits_for_other_threads_if_told(gateway, stream, aws, run):
    put_in_order(gateway, stream, run, 3)
    consumer = headworks.Consumer(run, stream, **aws)
    held = []
    for record in consumer:
        if is_mine(record, run):
            held.append(record)
        else:
            record.ack()
        if len(held) == 3:
            break
    closer = threading.Thread(target=lambda: consumer.close(wait_for_acks=True))
    closer.start()
    for record in held[:2]:
        assert record.ack(), "given back before its time"
    assert closer.is_alive(), "closed while a record was in hand"
    assert held[2].ack()
    closer.join(PATIENCE)
    assert not closer.is_alive()
    later = put_in_order(gateway, stream, f"{run}-later", 1)
    with headworks.Consumer(run, stream, **aws) as consumer:
        assert [record.key for record in collect(consumer, run, 1)] == later


def test_unacknowledged_records_are_bounded(gateway, stream, aws, run):
    keys = put_in_order(gateway, stream, run, 50)
    with headworks.Consumer(run, stream, max_unacknowledged=10, **aws) as consumer:
        mine = list(itertools.islice(acking_others(consumer, run), 10))
        assert [record.key for record in mine] == keys[:10]
        for record in mine:
            record.ack()
        more = list(itertools.islice(acking_others(consumer, run), 10))
        assert [record.key for record in more] == keys[10:20]


def acking_others(consumer, run):
    for record in consumer:
        if is_mine(record, run):
            yield record
        else:
            record.ack()
