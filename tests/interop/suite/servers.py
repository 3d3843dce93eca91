"""The other emulators as programs on free ports of the loopback, ended by their process ids."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import contextmanager

from .harness import WORK, Failure, client, eventually, process, tail


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(endpoint: str, service: str) -> bool:
    asked = client(service, endpoint, connect_timeout=1, read_timeout=5)
    try:
        asked.list_keys() if service == "kms" else asked.list_streams()
    except Exception:  # noqa: BLE001: not yet
        return False
    return True


@contextmanager
def _server(name: str, command: list, endpoint: str, environment: dict[str, str],
            service: str = "kinesis"):
    with process(name, command, env={**os.environ, **environment}) as running:
        def ready() -> bool:
            if running.poll() is not None:
                raise Failure(f"{name} ended with {running.returncode}:\n{tail(name)}")
            return answers(endpoint, service)

        eventually(f"{name} answers at {endpoint}", ready, 60)
        yield endpoint


def ministack(service: str = "kinesis"):
    port = free_port()
    folder = WORK / "ministack"
    environment = {"PYTHONPATH": str(folder), "GATEWAY_PORT": str(port), "MINISTACK_HOST": "127.0.0.1",
                   "SERVICES": service, "PERSIST_STATE": "0"}
    return _server("ministack", [sys.executable, "-m", "ministack.app"], f"http://127.0.0.1:{port}", environment,
                   service)


def kinesis_local():
    plain, tls = free_port(), free_port()
    package = WORK / "node/node_modules/kinesis-local"
    environment = {"KINESIS_MOCK_CERT_PATH": str(package / "server.json"), "KINESIS_MOCK_CERT_PASSWORD": "",
                   "KINESIS_MOCK_PLAIN_PORT": str(plain), "KINESIS_MOCK_TLS_PORT": str(tls), "SHARD_LIMIT": "1000",
                   "AWS_REGION": "us-east-1", "LOG_LEVEL": "ERROR"}
    return _server("kinesis-local", ["node", str(package / "main.js")], f"http://127.0.0.1:{plain}", environment)
