"""Runs a session with boto3; node/session.mjs is the same for Node's SDK. The language is in sessions.py."""

from __future__ import annotations

import datetime
import os
import re
import threading
import time
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from .harness import client


def _path(value: Any, path: str) -> Any:
    for word in path.split("."):
        if value is None:
            return None
        value = value[int(word)] if word.isdigit() else value.get(word)
    return value


def fill(value: Any, names: dict[str, Any]) -> Any:
    """The input with its variables and templates filled in."""
    if isinstance(value, str):
        whole = re.fullmatch(r"\$\{(\w+)\}", value)
        if whole:
            return names.get(whole[1])
        return re.sub(r"\$\{(\w+)\}", lambda match: str(names.get(match[1])), value)
    if isinstance(value, list):
        return [fill(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    if "$bytes" in value:
        return fill(value["$bytes"], names).encode()
    if "$fill" in value:
        return b"x" * value["$fill"]
    if "$word" in value:
        return "x" * value["$word"]
    if "$at" in value:
        at = fill(value["$at"], names)
        return datetime.datetime.fromtimestamp(time.time() + at if at <= 0 else at, datetime.timezone.utc)
    if "$times" in value:
        count, template = value["$times"]
        return [fill(template, {**names, "i": number}) for number in range(count)]
    return {key: fill(item, names) for key, item in value.items()}


class Subscription:
    """An open subscription, read in the background until it ends."""

    def __init__(self, kinesis, **given):
        self.answer: dict[str, Any] = {"data": [], "ended": False, "children": []}
        self.first = threading.Event()
        self._changed = threading.Condition()
        self._stream = kinesis.subscribe_to_shard(**given)["EventStream"]
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for event in self._stream:
                self.first.set()
                body = event.get("SubscribeToShardEvent", {})
                with self._changed:
                    self.answer["data"] += [record["Data"].decode() for record in body.get("Records", [])]
                    self.answer["children"] += sorted(child["ShardId"] for child in body.get("ChildShards") or [])
                    self._changed.notify_all()
        except ClientError as error:
            self.answer["error"] = error.response["Error"]["Code"]
        except Exception:  # noqa: BLE001: whatever a cut connection is called, the subscription is over
            pass
        with self._changed:
            self.answer["ended"] = True
            self._changed.notify_all()
        self.first.set()

    def wait(self, records: int, seconds: float) -> dict:
        def enough() -> bool:
            return self.answer["ended"] or (records > 0 and len(self.answer["data"]) >= records)

        with self._changed:
            self._changed.wait_for(enough, seconds)
            return dict(self.answer)

    def close(self) -> None:
        try:
            self._stream.close()
        except Exception:  # noqa: BLE001: closing what another thread reads from
            pass


class Runner:
    """One run of a session."""

    def __init__(self, endpoint: str, stream: str):
        self.names: dict[str, Any] = {"stream": stream}
        self._held: dict[str, Subscription] = {}
        self._kinesis = client("kinesis", endpoint, read_timeout=30) if endpoint else _aws()

    def run(self, steps: list[dict]) -> list[Any]:
        answers = [self._step(step) for step in steps]
        for subscription in self._held.values():
            subscription.close()
        return answers

    def _step(self, step: dict) -> Any:
        given = fill(step["in"], self.names)
        try:
            operation = step["op"]
            answer = getattr(self, operation[1:])(**given) if operation[0] == "@" else self._call(operation, given)
        except ClientError as error:
            return {"error": error.response["Error"]["Code"], "message": error.response["Error"].get("Message", "")}
        except Exception as error:  # noqa: BLE001: an answer that the client cannot read is an answer of this server
            return {"error": type(error).__name__, "message": "the client cannot read the answer"}
        for name, path in step["save"].items():
            self.names[name] = _path(answer, path)
        return answer

    def _call(self, operation: str, given: dict) -> dict:
        method = re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()
        answer = getattr(self._kinesis, method)(**given)
        answer.pop("ResponseMetadata", None)
        return answer

    def remove(self) -> None:
        """Deletes the session's stream, with its consumers, if it is there."""
        try:
            self._kinesis.delete_stream(StreamName=self.names["stream"], EnforceConsumerDeletion=True)
        except ClientError:
            pass

    def _until(self, ready, seconds: float = 20) -> dict:
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                return {"timeout": True}
            time.sleep(0.1)
        return {}

    def active(self, stream: str) -> dict:
        def ready() -> bool:
            summary = self._kinesis.describe_stream_summary(StreamName=stream)
            return summary["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE"

        return self._until(ready)

    def consumer(self, ConsumerARN: str) -> dict:  # noqa: N803: as the operation has it
        def ready() -> bool:
            described = self._kinesis.describe_stream_consumer(ConsumerARN=ConsumerARN)
            return described["ConsumerDescription"]["ConsumerStatus"] == "ACTIVE"

        return self._until(ready)

    def pause(self, seconds: float) -> dict:
        time.sleep(seconds)
        return {}

    def now(self) -> dict:
        return {"time": time.time()}

    def drain(self, **given) -> dict:
        iterator = self._kinesis.get_shard_iterator(**given)["ShardIterator"]
        data: list[str] = []
        children: list[str] = []
        for _ in range(50):
            answer = self._kinesis.get_records(ShardIterator=iterator)
            data += [record["Data"].decode() for record in answer["Records"]]
            children += sorted(child["ShardId"] for child in answer.get("ChildShards") or [])
            iterator = answer.get("NextShardIterator")
            if not iterator or (not answer["Records"] and answer.get("MillisBehindLatest", 0) == 0):
                break
        return {"data": data, "ended": not iterator, "children": children}

    def subscribe(self, records: int, seconds: float, hold: str, **given) -> dict:
        subscription = Subscription(self._kinesis, **given)
        if hold:
            self._held[hold] = subscription
            subscription.first.wait(seconds)
            return {}
        answer = subscription.wait(records, seconds)
        subscription.close()
        return answer

    def collect(self, hold: str) -> dict:
        subscription = self._held.get(hold)
        if subscription is None:
            return {"error": "NotOpen", "message": ""}
        return subscription.wait(0, 5)


def _aws():
    """The real service, with the caller's own credentials and region; run.sh hands them on under other names."""
    own = {name: os.environ.get(f"HEADWORKS_{name}")
           for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")}
    session = boto3.Session(
        **{name.lower(): value for name, value in own.items() if value},
        # A named profile goes before the environment, where the local stack's credentials stand.
        profile_name=None if own["AWS_ACCESS_KEY_ID"] else os.environ.get("HEADWORKS_AWS_PROFILE") or "default",
        region_name=os.environ.get("HEADWORKS_AWS_REGION"),
    )
    return session.client("kinesis", config=Config(parameter_validation=False))
