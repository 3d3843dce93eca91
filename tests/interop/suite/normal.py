"""Answers without what differs from run to run: names, times, sequence numbers, tokens."""

from __future__ import annotations

import datetime
import re
from typing import Any

TOKENS = {"ShardIterator", "NextShardIterator", "NextToken"}
TIMES = {"time", "ConsumerCreationTimestamp", "StreamCreationTimestamp", "ApproximateArrivalTimestamp"}
# Those that depend on the moment; zero is told apart.
COUNTS = {"MillisBehindLatest", "OpenShardCount", "OnDemandStreamCount"}
RULES = [
    (re.compile(r"arn:aws:kinesis:[a-z0-9-]+:\d{12}:"), "arn:"),
    (re.compile(r"(?<=/consumer/)([\w.-]+):\d+"), r"\1:<time>"),
    (re.compile(r"\b\d{50,60}\b"), "<sequence>"),
    (re.compile(r"\b\d{12}\b(?<!000000000[0-9]{3})"), "<account>"),
    (re.compile(r"(?<=account )\d{12}"), "<account>"),
    (re.compile(r"x{64,}"), "xxx"),
]


def normal(value: Any, stream: str, key: str = "") -> Any:
    if isinstance(value, dict):
        items = ((name, normal(item, stream, name)) for name, item in value.items())
        return {name: item for name, item in sorted(items) if item is not None}
    if isinstance(value, (list, tuple)):
        return [normal(item, stream, key) for item in value]
    if value is None:
        return None
    if key in TOKENS:
        return "<token>"
    if key.endswith("SequenceNumber"):
        return "<sequence>"
    if key in COUNTS and value:
        return "<some>"
    if key in TIMES or isinstance(value, datetime.datetime):
        return "<time>"
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        value = value.replace(stream, "<stream>")
        for pattern, replacement in RULES:
            value = pattern.sub(replacement, value)
    return value


def differences(ours: Any, theirs: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Where two answers differ: (path, ours, theirs). An error's message is told apart from its kind."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if not path and ours.get("error") != theirs.get("error"):
            # What an error says, and what an answer has instead of it, adds nothing.
            return [("error", ours.get("error", "none"), theirs.get("error", "none"))]
        found = []
        for name in sorted({*ours, *theirs}):
            found += differences(ours.get(name), theirs.get(name), f"{path}.{name}" if path else name)
        return found
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        if all(isinstance(item, dict) for item in ours + theirs):
            found = []
            for mine, other in zip(ours, theirs, strict=True):
                # Places in a list are of no interest to an explanation.
                found += differences(mine, other, f"{path}[]")
            return list({str(one): one for one in found}.values())
    return [] if ours == theirs else [(path or "answer", ours, theirs)]
