"""Node's SDK over HTTP/2 with prior knowledge: live subscriptions, and every scripted session as boto3 sees it."""

from __future__ import annotations

import subprocess
import sys

from .differential import by_boto, by_node, compare, short
from .harness import KINESIS, LOGS, WORK, check, node_program, run, tail


def live() -> None:
    with (LOGS / "node-live.log").open("wb") as log:
        ended = subprocess.run(["node", str(node_program("live.mjs")), KINESIS], stderr=log, cwd=WORK / "node",
                               timeout=90, check=False)
    check(ended.returncode == 0, f"live.mjs ended with {ended.returncode}:\n{tail('node-live')}")


def sessions() -> None:
    lines = compare("Node's SDK", by_boto(KINESIS), by_node())
    check(not lines, "; ".join(f"{line.session} / {line.step}: {line.path}: boto3 {short(line.ours)}, "
                               f"Node {short(line.theirs)}" for line in lines))


SCENARIOS = {"live-subscriptions": live, "sessions-as-boto3-sees-them": sessions}

if __name__ == "__main__":
    sys.exit(run(SCENARIOS))
