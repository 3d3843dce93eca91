"""What the parts share: scenarios, clients, programs that are ended by their process id."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import boto3
from botocore.config import Config

WORK = Path(os.environ["HEADWORKS_INTEROP_WORK"])
BIN = Path(os.environ["HEADWORKS_INTEROP_BIN"])
HERE = Path(__file__).resolve().parent.parent
LOGS = WORK / "logs"
LOGS.mkdir(parents=True, exist_ok=True)

KINESIS = os.environ.get("HEADWORKS_TEST_KINESIS", "")
DYNAMODB = os.environ.get("HEADWORKS_TEST_DYNAMODB", "")


class Failure(Exception):
    """A scenario's expectation that was not met."""


def check(condition: object, message: str) -> None:
    if not condition:
        raise Failure(message)


def say(text: str) -> None:
    print(f"interop: {text}", file=sys.stderr, flush=True)


def client(service: str, endpoint: str, **options):
    """A boto3 client of a local endpoint that never retries by itself."""
    settings = Config(retries={"total_max_attempts": 1}, parameter_validation=False, **options)
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=settings,
    )


def eventually(what: str, condition: Callable[[], object], seconds: float = 30, every: float = 0.1):
    """Polls until the condition's value is true, and returns it."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise Failure(f"{what}: not within {seconds:g} s")
        time.sleep(every)


@contextmanager
def process(name: str, command: list, **options):
    """A program in the background, its stderr in a log; ended by its process id."""
    log = LOGS / f"{name}.log"
    with log.open("wb") as stderr:
        running = subprocess.Popen([str(word) for word in command], stderr=stderr, **options)
        try:
            yield running
        finally:
            if running.poll() is None:
                running.terminate()
                try:
                    running.wait(10)
                except subprocess.TimeoutExpired:
                    running.kill()
                    running.wait()


def tail(name: str, lines: int = 20) -> str:
    text = (LOGS / f"{name}.log").read_text(errors="replace").splitlines()
    return "\n".join(text[-lines:])


def java(main: str, *arguments: str) -> list:
    classpath = f"{WORK}/java/classes:{(WORK / 'java.classpath').read_text().strip()}"
    return [
        "java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-cp", classpath, f"interop.{main}", *arguments,
    ]  # fmt: skip


def node_program(name: str) -> Path:
    """A program of node/ beside its packages, where Node looks for them."""
    program = WORK / "node" / name
    program.write_bytes((HERE / "node" / name).read_bytes())
    return program


def run(scenarios: dict[str, Callable[[], None]], together: int = 1) -> int:
    """Runs the scenarios, so many at once, each to its end, and tells the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-k", default="", help="only scenarios whose name has this word")
    parser.add_argument("-j", type=int, default=together, help=f"how many at once (default {together})")
    options = parser.parse_args()
    chosen = {name: scenario for name, scenario in scenarios.items() if options.k in name}
    if not chosen:
        parser.error(f"no scenario has {options.k!r} in its name; there are {', '.join(scenarios)}")

    def attempt(name: str) -> bool:
        started = time.monotonic()
        say(f"begins {name}")
        try:
            chosen[name]()
        except Failure as failure:
            say(f"FAILED {name}: {failure}")
        except Exception:  # noqa: BLE001: a broken scenario must not hide the others
            say(f"FAILED {name}: {traceback.format_exc()}")
        else:
            say(f"passed {name} ({time.monotonic() - started:.1f} s)")
            return True
        return False

    with ThreadPoolExecutor(options.j) as pool:
        passed = dict(zip(chosen, pool.map(attempt, chosen), strict=True))
    failed = [name for name, well in passed.items() if not well]
    say(f"{len(chosen) - len(failed)} of {len(chosen)} passed" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0
