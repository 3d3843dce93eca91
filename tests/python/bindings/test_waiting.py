"""Waiting, signals and forks."""

import asyncio
import os
import signal
import threading
import time

import pytest

import headworks
from headworks import errors
from support import PATIENCE, is_mine, put_in_order, script


def test_other_threads_run_and_close_ends_the_wait(stream, aws, run):
    consumer = headworks.Consumer(run, stream, start="LATEST", **aws)
    ended = threading.Event()

    def read():
        for record in consumer:
            record.ack()
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    deadline = time.monotonic() + PATIENCE
    while consumer.status()["phase"] != "running":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    # Were the interpreter held by the reader's wait, this thread would get no turn at all.
    turns, until = 0, time.monotonic() + 0.3
    while time.monotonic() < until:
        turns += 1
    assert turns > 1000
    consumer.close()
    assert ended.wait(PATIENCE)
    reader.join()
    assert next(consumer, None) is None
    with pytest.raises(errors.Closed):
        consumer.__enter__()


def test_giving_up_an_await_loses_nothing(gateway, stream, aws, run):
    keys = put_in_order(gateway, stream, run, 40)

    async def read():
        taken = []
        async with headworks.AsyncConsumer(run, stream, **aws) as consumer:
            patience = 0.0
            while len(taken) < len(keys):
                try:
                    # Given up at every stage of the wait, sooner or later.
                    async with asyncio.timeout(patience):
                        record = await anext(consumer)
                except TimeoutError:
                    patience += 0.0005
                    continue
                if is_mine(record, run):
                    taken.append(record.key)
                    patience = 0.0
                record.ack()
        return taken

    assert asyncio.run(read()) == keys


def test_the_event_loop_gets_its_turns(gateway, stream, aws, run):
    count = 2000
    put_in_order(gateway, stream, run, count)

    async def read():
        turns = 0

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        taken = 0
        async with headworks.AsyncConsumer(run, stream, **aws) as consumer:
            async for record in consumer:
                taken += is_mine(record, run)
                if taken == 1:
                    turns = 0
                if taken == count:
                    break
            consumer.checkpoint()
        task.cancel()
        return turns

    assert asyncio.run(read()) >= count // 256


def test_ctrl_c_ends_a_wait(stream, aws, run):
    process = script(f"""
        import time
        import headworks
        with headworks.Consumer({run!r}, {stream!r}, start="LATEST", **{aws!r}) as consumer:
            while consumer.status()["phase"] != "running":
                time.sleep(0.01)
            print("waiting")
            for record in consumer:
                record.ack()
    """)
    assert process.stdout.readline() == "waiting\n", process.communicate()
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, talk = process.communicate(timeout=PATIENCE)
    assert "KeyboardInterrupt" in talk and process.returncode == -signal.SIGINT
    assert time.monotonic() - began < 5, "the wait and the closing together"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_gets_an_error_and_no_deadlock(gateway, run):
    process = script(f"""
        import os, sys, headworks
        producer = headworks.Producer({gateway!r})
        record = headworks.Record({run!r}, b"x")
        producer.put(record)
        child = os.fork()
        if child == 0:
            for use in (lambda: producer.put(record), lambda: headworks.Producer({gateway!r}).put(record)):
                try:
                    use()
                except headworks.errors.UsedAfterFork as error:
                    print(error.code, "spawn" in str(error))
            sys.exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        producer.put(record)
    """)
    said, talk = process.communicate(timeout=PATIENCE)
    assert said.split() == ["used-after-fork", "True"] * 2 + ["7"], talk
    assert process.returncode == 0, talk


def test_headworks_in_forked_children_only(gateway, run):
    process = script(f"""
        import os, headworks
        if (child := os.fork()) == 0:
            with headworks.Producer({gateway!r}) as producer:
                print(producer.put(headworks.Record({run!r}, b"x")).attempts)
            os._exit(0)
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    said, talk = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and said.strip().isdigit(), talk


def test_the_interpreter_ends_with_everything_open(gateway, stream, aws, run):
    process = script(f"""
        import headworks
        producer = headworks.Producer({gateway!r})
        producer.put(headworks.Record({run!r}, b"x"))
        consumer = headworks.Consumer({run!r}, {stream!r}, **{aws!r})
        record = next(consumer)
        print("done")
    """)
    said, talk = process.communicate(timeout=PATIENCE)
    assert (said, talk, process.returncode) == ("done\n", "", 0)
