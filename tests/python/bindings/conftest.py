"""The Python package, as a user installs it: the producer puts, the consumer reads the same stream back.

Run with the interpreter that bindings/python/build.sh prints. What needs a pipeline is told by the environment:

    HEADWORKS_TEST_GATEWAY    address of the gateway's gRPC: host:port, or a URL
    HEADWORKS_TEST_KINESIS    URL of the Kinesis endpoint behind it
    HEADWORKS_TEST_DYNAMODB   URL of a DynamoDB endpoint
    HEADWORKS_TEST_STREAM     inbound stream that the gateway serves; may hold other records already
"""

import faulthandler
import os
import uuid

import pytest

from support import PATIENCE, SCRIPTS

# The embedded stack takes any credentials, and a machine that runs tests may have none.
os.environ.setdefault("AWS_ACCESS_KEY_ID", "test")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "test")


def setting(name):
    value = os.environ.get(name)
    if not value:
        pytest.fail(f"{name} is not set; this test needs a running pipeline and is run by the Rust test that starts one")
    return value


@pytest.fixture(autouse=True)
def watchdog():
    """A wait that never ends is told with the stacks of all threads, instead of for ever."""
    faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def gateway():
    address = setting("HEADWORKS_TEST_GATEWAY")
    return address if "://" in address else f"http://{address}"


@pytest.fixture(scope="session")
def stream():
    return setting("HEADWORKS_TEST_STREAM")


@pytest.fixture(scope="session")
def aws():
    return {
        "kinesis_endpoint_url": setting("HEADWORKS_TEST_KINESIS"),
        "dynamodb_endpoint_url": setting("HEADWORKS_TEST_DYNAMODB"),
        "region": os.environ.get("AWS_REGION", "us-east-1"),
    }


@pytest.fixture
def run():
    """A name of this test's own: for its application, and for the keys that tell its records from others.

    Each application registers a fan-out consumer, and a stream has at most 20 of them.
    """
    return f"python-{uuid.uuid4().hex[:12]}"


@pytest.fixture(autouse=True)
def no_script_is_left():
    """A test that fails half-way leaves no process behind."""
    yield
    while SCRIPTS:
        process = SCRIPTS.pop()
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
