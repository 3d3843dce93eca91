"""The same scripted sessions against ours, ministack and kinesis-local, and by several clients against ours.

Every difference is a line of DIFFERENCES.md with the side that AWS documents; one that `explained.py` does not know
fails, and so does an explanation that nothing needs any more.

With HEADWORKS_AWS=1 the sessions also run against the real service, with the caller's own credentials and region: it
costs a few cents, makes streams named headworks-interop-… and deletes them. Nobody has tried that yet: expect the
first run to need a few more normalisations, and states that last longer than the runners wait.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from . import model, servers
from .boto import Runner
from .explained import EXPLAINED, Explanation
from .harness import BIN, HERE, KINESIS, LOGS, WORK, Failure, node_program, say, tail
from .normal import differences, normal
from .sessions import SESSIONS

PREFIX = "headworks-interop"
MODEL = "AWS's service model"
TABLE = HERE / "DIFFERENCES.md"

Answers = dict[str, list[Any]]


def by_boto(endpoint: str) -> Answers:
    def one(name: str) -> list[Any]:
        stream = f"{PREFIX}-{uuid.uuid4().hex[:12]}"
        runner = Runner(endpoint, stream)
        try:
            return [normal(answer, stream) for answer in runner.run(SESSIONS[name])]
        finally:
            if not endpoint:
                runner.remove()

    started = time.monotonic()
    # The real service limits its control plane to a few calls per second.
    with ThreadPoolExecutor(4 if endpoint else 1) as pool:
        answers = dict(zip(SESSIONS, pool.map(one, SESSIONS), strict=True))
    say(f"  took {time.monotonic() - started:.0f} s")
    return answers


def by_program(name: str, command: list, folder) -> Answers:
    """A runner in another language: it takes all sessions on its stdin and answers on its stdout."""
    streams = {session: f"{PREFIX}-{uuid.uuid4().hex[:12]}" for session in SESSIONS}
    given = [{"stream": streams[session], "steps": steps} for session, steps in SESSIONS.items()]
    with (LOGS / f"{name}.log").open("wb") as log:
        ended = subprocess.run(
            [str(word) for word in command], input=json.dumps({"endpoint": KINESIS, "sessions": given}),
            capture_output=False, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder, timeout=300, check=False,
        )
    if ended.returncode != 0:
        raise Failure(f"{name} ended with {ended.returncode}:\n{tail(name)}")
    answers = json.loads(ended.stdout)
    return {session: [normal(answer, stream) for answer in given]
            for (session, stream), given in zip(streams.items(), answers, strict=True)}


def by_node() -> Answers:
    return by_program("node-session", ["node", node_program("session.mjs")], WORK / "node")


def by_rust() -> Answers:
    return by_program("rust-session", [BIN / "interop-session"], WORK)


@dataclass
class Line:
    """One difference."""

    side: str
    session: str
    step: str
    path: str
    ours: Any
    theirs: Any
    explanation: Explanation | None = None


def short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    text = text.replace("|", "\\|").replace("\n", " ")
    return text if len(text) <= 160 else text[:157] + "…"


def compare(side: str, ours: Answers, theirs: Answers) -> list[Line]:
    lines = []
    for session, steps in SESSIONS.items():
        for step, mine, other in zip(steps, ours[session], theirs[session], strict=True):
            lines += [Line(side, session, step["name"], *one) for one in differences(mine, other)]
    return lines


def against_the_model(ours: Answers) -> list[Line]:
    """Steps whose input AWS's own model forbids, and that ours does not refuse by validation."""
    lines = []
    for session, prescribed in model.documented().items():
        for step, mine, other in zip(SESSIONS[session], ours[session], prescribed, strict=True):
            if other and mine.get("error") != other["error"]:
                theirs = f"{other['error']}: {other['message']}"
                lines.append(Line(MODEL, session, step["name"], "error", mine.get("error", "none"), theirs))
    return lines


def explain(lines: list[Line]) -> set[int]:
    used = set()
    for line in lines:
        for number, explanation in enumerate(EXPLAINED):
            if explanation.covers(line.side, line.session, line.step, line.path):
                line.explanation = explanation
                used.add(number)
                break
    return used


def rows(lines: list[Line]) -> list[str]:
    """A row for each explanation, kind of place and session: the steps, and the first of them as the example."""
    grouped: dict[tuple, list[Line]] = {}
    for line in lines:
        # Messages are of no interest one by one.
        why = line.explanation and (line.explanation.documented, line.explanation.why, line.explanation.source)
        what = (why, line.path, None if line.path == "message" else line.session)
        grouped.setdefault(what, []).append(line)
    made = []
    for (why, path, _), together in grouped.items():
        first = together[0]
        places: dict[str, list[str]] = {}
        for line in together:
            steps = places.setdefault(line.session, [])
            if line.step not in steps:
                steps.append(line.step)
        where = "; ".join(f"{session}: {', '.join(steps)}" for session, steps in places.items())
        told = why or ["?", "unexplained", ""]
        made.append("| " + " | ".join([where, path, short(first.ours), short(first.theirs), *told]) + " |")
    return made


def write(lines: list[Line], sides: list[str]) -> None:
    steps = sum(len(steps) for steps in SESSIONS.values())
    text = [
        "# Differences",
        "",
        "Generated by `tests/interop/run.sh differential`; do not edit. "
        f"{len(SESSIONS)} sessions with {steps} steps; what is not listed agrees. Names, times, sequence numbers and "
        "tokens are left out. Where several steps differ alike, the values are those of the first one.",
        "",
        "*Documented* names the side that AWS documents: `ours`, `theirs`, or `neither` where its documentation "
        "leaves it open. Sources are pages of the Kinesis API reference (`API_…`) unless they say otherwise.",
    ]
    for side in sides:
        mine = [line for line in lines if line.side == side]
        told = steps if side != MODEL else sum(one is not None for all_ in model.documented().values() for one in all_)
        agreeing = told - len({(line.session, line.step) for line in mine if line.path != "message"})
        text += ["", f"## Ours{' by boto3' if side.startswith('ours by') else ''} and {side}", ""]
        if side == MODEL:
            text += ["The constraints on lengths, ranges, patterns and values that AWS publishes with its SDKs: what "
                     "violates one is a ValidationException.", ""]
        text.append(f"{agreeing} of {told} steps agree but for wording.")
        if mine:
            text += ["", "| where | what | ours | theirs | documented | why | source |", "|---|---|---|---|---|---|---|"]
            text += rows(mine)
    TABLE.write_text("\n".join(text) + "\n")


def main() -> int:
    with ExitStack() as running:
        started = {"ministack": servers.ministack, "kinesis-local": servers.kinesis_local}
        endpoints = {name: running.enter_context(start()) for name, start in started.items()}
        if os.environ.get("HEADWORKS_AWS") == "1":
            endpoints["aws"] = ""
        say("ours by boto3")
        ours = by_boto(KINESIS)
        theirs: dict[str, Answers] = {}
        for name, endpoint in endpoints.items():
            say(f"{name} by boto3")
            theirs[name] = by_boto(endpoint)
    say("ours by Node's SDK")
    theirs["ours by Node's SDK"] = by_node()
    say("ours by Rust's SDK")
    theirs["ours by Rust's SDK"] = by_rust()
    (LOGS / "differential.json").write_text(json.dumps({"ours": ours, **theirs}, indent=1))
    lines = [line for side, answers in theirs.items() for line in compare(side, ours, answers)]
    lines += against_the_model(ours)
    used = explain(lines)
    write(lines, [*theirs, MODEL])
    unexplained = [line for line in lines if line.explanation is None]
    for line in unexplained:
        say(f"UNEXPLAINED {line.side}: {line.session} / {line.step}: {line.path}: "
            f"ours {short(line.ours)}; theirs {short(line.theirs)}")
    stale = [explanation for number, explanation in enumerate(EXPLAINED) if number not in used and not explanation.sometimes]
    for explanation in stale:
        say(f"STALE explanation, nothing needs it: {explanation}")
    say(f"{len(lines)} differences, {len(unexplained)} unexplained, {len(stale)} stale explanations: {TABLE}")
    return 1 if unexplained or stale else 0


if __name__ == "__main__":
    sys.exit(main())
