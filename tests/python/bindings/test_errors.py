"""Errors of the consumer, and the README."""

import asyncio
import inspect
import json
import re

import pytest

import headworks
from headworks import errors
from support import BINDING, PATIENCE, script


def test_a_stream_that_does_not_exist(aws, run):
    with pytest.raises(errors.NotFound) as caught:
        next(headworks.Consumer(run, "no-such-stream", startup_timeout=PATIENCE, **aws))
    assert caught.value.code == "kinesis-not-found" and "no-such-stream" in str(caught.value)


def test_no_kinesis_there(aws, stream, run):
    nobody = aws | {"kinesis_endpoint_url": "http://127.0.0.1:9"}
    with pytest.raises(errors.Unavailable) as caught:
        next(headworks.Consumer(run, stream, startup_timeout=1, **nobody))
    assert caught.value.retryable


def test_an_error_ends_the_async_iteration_too(aws, run):
    async def read():
        async with headworks.AsyncConsumer(run, "no-such-stream", **aws) as consumer:
            async for _ in consumer:
                pass

    with pytest.raises(errors.NotFound):
        asyncio.run(read())


def test_the_readme_examples_run(gateway, stream, aws, run):
    blocks = re.findall(r"```python\n(.*?)```", (BINDING / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    environment = {
        "AWS_ENDPOINT_URL_KINESIS": aws["kinesis_endpoint_url"],
        "AWS_ENDPOINT_URL_DYNAMODB": aws["dynamodb_endpoint_url"],
        "AWS_REGION": aws["region"],
    }
    for number, block in enumerate(blocks):
        for placeholder, value in (
            ("http://127.0.0.1:4400", gateway),
            ('"orders"', json.dumps(stream)),
            ('"order-mails"', json.dumps(f"{run}-{number}")),
            ("session-42", run),
        ):
            assert placeholder in block
            block = block.replace(placeholder, value)
        process = script(block, environment=environment)
        said, talk = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, talk
        assert run in said and "order.placed" in said, said


def test_docs_reach_help():
    for thing in (headworks.Record, headworks.Producer, headworks.Consumer, headworks.AsyncConsumer):
        assert inspect.getdoc(thing)
