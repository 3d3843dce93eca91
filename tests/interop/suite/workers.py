"""Workers of both kinds as programs, and what they printed."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from dataclasses import dataclass, field

from .harness import BIN, DYNAMODB, KINESIS, LOGS, Failure, java, say, tail

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Seen:
    """A record as a worker printed it."""

    shard: str
    sequence: int
    sub: int
    key: str
    data: str


@dataclass
class Report:
    """What one run of a worker printed."""

    records: list[Seen] = field(default_factory=list)
    # Where the KCL began each shard: (checkpoint, sub-sequence).
    begins: dict[str, tuple[str, int]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)

    def data(self) -> list[str]:
        return [record.data for record in self.records]


def parse(text: str) -> Report:
    report = Report()
    for line in text.splitlines():
        kind, *fields = line.split("\t")
        if kind == "record":
            shard, sequence, sub, key, data = fields
            report.records.append(Seen(shard, int(sequence), int(sub), key, data))
        elif kind == "begin":
            report.begins[fields[0]] = (fields[1], int(fields[2]))
        elif kind == "end":
            report.ended.add(fields[0])
    return report


def _environment() -> dict[str, str]:
    endpoints = {"AWS_ENDPOINT_URL_KINESIS": KINESIS, "AWS_ENDPOINT_URL_DYNAMODB": DYNAMODB}
    return {**os.environ, **endpoints, "RUST_BACKTRACE": "0"}


def command(kind: str, stream: str, application: str, stop_after: int, linger: int = 0, start: str = "TRIM_HORIZON",
            deadline: int = 90, kcl_rule: bool = False) -> list:
    """The command of a worker: kind is ours, kcl-polling or kcl-fanout."""
    if kind == "ours":
        options = {"stream": stream, "application": application, "stop-after": stop_after, "linger": linger,
                   "start": start, "deadline": deadline, "kcl-rule": kcl_rule}
        return [str(BIN / "interop-consumer"), json.dumps(options)]
    return java(
        "Kcl", f"mode={kind.removeprefix('kcl-')}", f"stream={stream}", f"application={application}",
        f"kinesis={KINESIS}", f"dynamodb={DYNAMODB}", f"stop-after={stop_after}", f"linger={linger}",
        f"start={start}", f"deadline={deadline}",
    )


class Worker:
    """A worker that runs until it has stopped by itself; ended by its id when the block is left early."""

    def __init__(self, kind: str, stream: str, application: str, stop_after: int, **options):
        self.kind = kind
        self.name = f"{next(_numbers):03}-{application}-{kind}"
        self.deadline = options.get("deadline", 90)
        self._stderr = (LOGS / f"{self.name}.log").open("wb")
        self._stdout = (LOGS / f"{self.name}.out").open("w+b")
        self._process = subprocess.Popen(
            command(kind, stream, application, stop_after, **options),
            stdout=self._stdout, stderr=self._stderr, env=_environment(),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._stderr.close()
        self._stdout.close()

    def so_far(self) -> Report:
        return parse((LOGS / f"{self.name}.out").read_text(errors="replace"))

    def finish(self) -> Report:
        code = self._process.wait(self.deadline + 90)
        report = self.so_far()
        say(f"  {self.kind}: {len(report.records)} records")
        if code != 0:
            raise Failure(f"the worker {self.name} ended with {code} after {len(report.records)} records:\n"
                          + tail(self.name))
        return report


def work(kind: str, stream: str, application: str, stop_after: int, **options) -> Report:
    """Runs a worker to its end."""
    with Worker(kind, stream, application, stop_after, **options) as worker:
        return worker.finish()
