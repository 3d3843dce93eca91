"""What AWS's published service model says of a step's input: the constraints that its API reference prints.

It comes with botocore. An input that violates one is a ValidationException of the service, before anything else.
"""

from __future__ import annotations

import re
from typing import Any

import botocore.session

from .boto import fill
from .sessions import SESSIONS

MODEL = botocore.session.get_session().get_service_model("kinesis")


def _violations(shape, value: Any, path: str):
    if value is None:
        return
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if shape.type_name in ("string", "blob", "list", "map"):
        size = len(value)
        if (low is not None and size < low) or (high is not None and size > high):
            yield f"{path} has length {size}, not from {low} to {high}"
    elif shape.type_name in ("integer", "long"):
        if (low is not None and value < low) or (high is not None and value > high):
            yield f"{path} is {value}, not from {low} to {high}"
    if shape.type_name == "string":
        pattern = shape.metadata.get("pattern")
        if pattern and not re.fullmatch(pattern, value):
            yield f"{path} does not match {pattern}"
        if shape.enum and value not in shape.enum:
            yield f"{path} is none of {', '.join(shape.enum)}"
    elif shape.type_name == "structure":
        for name in shape.required_members:
            if value.get(name) is None:
                yield f"{path}{name} is required"
        for name, item in value.items():
            yield from _violations(shape.members[name], item, f"{path}{name}")
    elif shape.type_name == "list":
        for item in value:
            yield from _violations(shape.member, item, f"{path}[].")


def violation(step: dict) -> str | None:
    """The first constraint that the step's input violates, as far as it does not come from earlier answers."""
    operation = "SubscribeToShard" if step["op"] == "@subscribe" else step["op"]
    if operation.startswith("@"):
        return None
    # Names that are only known in a run: legal ones.
    shape = MODEL.operation_model(operation).input_shape
    legal = {"stream": "stream", "arn": "arn:aws:kinesis:us-east-1:000000000000:stream/stream",
             "consumer": "arn:aws:kinesis:us-east-1:000000000000:stream/stream/consumer/reader:1700000000",
             "iterator": "AAAA", "token": "AAAA", "a": "49", "b": "49", "time": 1, "before": 1, "after": 1}
    given = fill(step["in"], legal)
    if step["op"] == "@subscribe":
        given = {name: value for name, value in given.items() if name in shape.members}
    return next(_violations(shape, given, ""), None)


def documented() -> dict[str, list[Any]]:
    """For each step the answer that the model prescribes; None where it prescribes none."""
    return {
        session: [None if (found := violation(step)) is None else {"error": "ValidationException", "message": found}
                  for step in steps]
        for session, steps in SESSIONS.items()
    }
