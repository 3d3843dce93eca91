"""Runs the benchmarks of one part or of all, and the peers beside them.

    bench.py [PART]          gateway, router, consumer, python, local; none: all

Programs print one JSON object a line on stdout; they are collected in target/bench/results.json, with the
machine in target/bench/machine.json, and docs/benchmarks.md is written from both. Figures of parts that
were not run this time are kept. HEADWORKS_BENCH_SCALE (default 1) shortens or lengthens the runs.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
OUT = TARGET / "bench"
SCALE = float(os.environ.get("HEADWORKS_BENCH_SCALE", "1"))
VENV = Path(os.environ.get("HEADWORKS_VENV", TARGET / "venv"))

# The bench targets of each part.
RUST = {
    "gateway": ["writer"],
    "router": ["router"],
    "consumer": ["consumer", "idle_cost"],
    "python": [],
    "local": ["kinesis"],
}
# A pipeline, and what it runs as its router.
PIPELINE = ["headworks", "with-pipeline"]
# What is measured as a process of its own, or measures. Each takes minutes to link.
PROGRAMS = {
    "gateway": ["headworks-gateway", "gateway-bench", "null-sink"],
    "router": ["bootstrap", "null-sink"],
    "consumer": ["count", *PIPELINE],
    "python": PIPELINE,
    "local": [],
}
# Always the same packages: another choice would resolve features anew and compile dependencies a second time.
WORKSPACE = ["--workspace", "--exclude", "headworks-python"]


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def machine() -> dict:
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), "")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "cpu": model or platform.processor() or "unknown",
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "commit": commit.stdout.strip(),
    }


def cargo(bench: str) -> list[dict]:
    say(bench)
    return figures_of(["cargo", "bench", "--quiet", *WORKSPACE, "--bench", bench])


def figures_of(command: list[str]) -> list[dict]:
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]


def program(name: str) -> str:
    return str(TARGET / "release" / name)


def bench_program(bench: str) -> str:
    """The program of a bench target, for those that are also peers."""
    command = ["cargo", "bench", "--quiet", *WORKSPACE, "--bench", bench, "--no-run", "--message-format=json"]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    messages = (json.loads(line) for line in ran.stdout.splitlines())
    return next(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == bench)


@contextmanager
def null_sink(shards: int) -> Iterator[dict]:
    with subprocess.Popen([program("null-sink"), str(shards)], stdout=subprocess.PIPE, text=True) as sink:
        try:
            yield json.loads(sink.stdout.readline())
        finally:
            sink.kill()


def usage(command: list[str]) -> tuple[float, float]:
    """CPU seconds and peak MiB of a command and of the children that it waited for."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"bench: {' '.join(command)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def peer(name: str, command: Callable[[int], list[str]], records: int) -> tuple[float, float]:
    """CPU nanoseconds per record, without what the start costs, and peak MiB."""
    small = max(records // 20, 1000)
    say(f"{name}: {records:,} records")
    begin, _ = usage(command(small))
    end, rss = usage(command(records))
    return (end - begin) / (records - small) * 1e9, rss


def gateway_peers(figures: list[dict]) -> list[dict]:
    """The same records into the same sink, written by others."""
    plain_sdk = program("gateway-bench")
    python = str(VENV / "bin" / "python")
    kpl = kpl_load()
    found = []
    with null_sink(4) as sink:
        for case, size in (("200B", 200), ("1KB", 1024)):
            def ours(metric: str) -> float:
                return next(f["value"] for f in figures if f["case"] == case and f["metric"] == metric)

            peers = [
                ("aws-sdk-kinesis PutRecords", 300_000, lambda n: [plain_sdk, "plain-sdk", sink["plain"], str(n), str(size)]),
                ("aws_kinesis_agg + boto3", 60_000, lambda n: [python, str(ROOT / "tests/bench/peers/agg_boto3.py"), sink["plain"], str(n), str(size)]),
            ]
            if kpl:
                peers.append(("KPL", 1_000_000, lambda n: kpl(sink["tls"], n, size)))
            for name, records, command in peers:
                cpu, rss = peer(name, command, int(records * SCALE))
                for metric, unit, value in (("cpu_ns_per_record", "ns", cpu), ("rss_mib", "MiB", rss)):
                    mine = ours(metric)
                    found.append({
                        "part": "gateway", "case": case, "metric": metric, "value": mine, "unit": unit,
                        "against": name, "against_value": value, "ratio": mine / value if value else None,
                    })
    return found


def router_peers(figures: list[dict]) -> list[dict]:
    """The same event routed two ways by Lambda handlers written the usual way, into the same kind of sink."""
    case, event = "two-way", OUT / "event.json"
    made = subprocess.run(
        [bench_program("router"), "event", case, str(event)],
        stdout=subprocess.PIPE, text=True, check=True,
    )
    records = int(made.stdout.split()[0])
    python, script = str(VENV / "bin" / "python"), str(ROOT / "tests/bench/peers/router_lambda.py")
    classpath = java_classpath()
    found = []
    with null_sink(4) as sink:
        peers = [("aws_kinesis_agg + boto3", 5, lambda times: [python, script, sink["plain"], str(event), str(times)])]
        if classpath:
            peers.append((
                "Java, KCL's de-aggregator", 45,
                lambda times: [
                    "java", "-cp", classpath, "interop.Deaggregate", f"endpoint={sink['plain']}", f"event={event}",
                    f"times={times}",
                ],
            ))
        for name, times, command in peers:
            few = max(times // 3, 1)
            say(f"{name}: {times} events of {records:,} records")
            begin, _ = usage(command(few))
            end, rss = usage(command(times))
            cpu = (end - begin) / ((times - few) * records) * 1e9
            for metric, unit, value in (("cpu_ns_per_record", "ns", cpu), ("rss_mib", "MiB", rss)):
                mine = next((f["value"] for f in figures if f["case"] == case and f["metric"] == metric), None)
                if mine is not None:
                    found.append({
                        "part": "router", "case": case, "metric": metric, "value": mine, "unit": unit,
                        "against": name, "against_value": value, "ratio": mine / value,
                    })
    return found


def consumer_peers() -> list[dict]:
    """The same aggregates on the same embedded stream, read by others and by ours through sockets."""
    classpath = java_classpath()
    command = [
        program("with-pipeline"), str(VENV / "bin" / "python"), str(ROOT / "tests/bench/consumer_peers.py"),
        str(int(400_000 * SCALE)), *([classpath] if classpath else []),
    ]
    environment = {**os.environ, "HEADWORKS_BENCH_PROGRAMS": str(TARGET / "release")}
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    seen = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    found = []
    for peer in seen:
        mine = next(one for one in seen if one["peer"] == "ours" and one["bytes"] == peer["bytes"])
        if peer is mine:
            continue
        case = f"{'1KB' if peer['bytes'] == 1024 else '200B'} over sockets"
        for metric, unit in (("cpu_ns_per_record", "ns"), ("rss_mib", "MiB")):
            found.append({
                "part": "consumer", "case": case, "metric": metric, "value": mine[metric], "unit": unit,
                "against": peer["peer"], "against_value": peer[metric], "ratio": mine[metric] / peer[metric],
            })
    return found


def python_figures() -> list[dict]:
    """The wheel, as it is published, beside what Python has."""
    built = subprocess.run([str(ROOT / "bindings/python/build.sh"), "--release"], stdout=subprocess.PIPE, text=True, check=True)
    command = [
        program("with-pipeline"), str(VENV / "bin" / "python"), str(ROOT / "bindings/python/benches/consume.py"),
        str(int(200_000 * SCALE)), built.stdout.strip(),
    ]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]


def java_classpath() -> str | None:
    """The KPL, the KCL and our programs around them, built by Maven; nothing, said aloud, where there is no Maven."""
    if not (shutil.which("mvn") and shutil.which("java")):
        say("no Maven or Java on the PATH: the KPL and the KCL are left out (Debian: apt-get install maven openjdk-17-jdk-headless)")
        return None
    say("building the programs around KPL and KCL")
    out = TARGET / "interop"
    out.mkdir(parents=True, exist_ok=True)
    command = [
        "mvn", "--batch-mode", "--quiet", "--file", str(ROOT / "tests/interop/java/pom.xml"),
        f"-Dinterop.directory={out}/java", f"-Dmdep.outputFile={out}/java.classpath",
        "compile", "dependency:build-classpath",
    ]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return f"{out}/java/classes:{(out / 'java.classpath').read_text().strip()}"


def kpl_load() -> Callable[[str, int, int], list[str]] | None:
    classpath = java_classpath()
    if classpath is None:
        return None
    (OUT / "kpl").mkdir(parents=True, exist_ok=True)

    def load(address: str, count: int, size: int) -> list[str]:
        host, port = address.removeprefix("https://").split(":")
        return [
            "java", "-cp", classpath, "interop.Load", "stream=null", f"host={host}", f"port={port}",
            f"records={count}", f"bytes={size}", f"temporary={OUT / 'kpl'}",
        ]

    return load


def shown(figure: dict) -> str:
    def number(value: float | None) -> str:
        if value is None:
            return ""
        return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"

    ratio = f"{figure['ratio']:.2f}" if figure["ratio"] is not None else ""
    against = f"{figure['against']}: {number(figure['against_value'])}" if figure["against"] else ""
    cells = (figure["case"], figure["metric"], f"{number(figure['value'])} {figure['unit']}".strip(), against, ratio)
    return "| " + " | ".join(cells) + " |"


def write_page(figures: list[dict], machines: dict[str, dict]) -> None:
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; `make bench PART=gateway` renews one part. `floor` is what the formats force on",
        "anyone: an MD5 of each partition key and of each aggregate, a SHA-256 of each signed body, measured in",
        "the same run on the bytes that were put. MD5s are counted one after the other there; Headworks takes them",
        "[side by side](adr/0013-md5-side-by-side.md), so a ratio may be below 1. A peer ran in the same run, on the same",
        "machine, into the same sink (gateway: `null-sink`, which keeps nothing; consumer: the embedded stack). Load, sink",
        "and what is measured share the machine's cores; CPU times are the kernel's. The gateway's rows of full load and",
        "the router's are the best of five rounds, as the floor is. \"Direct mode\" is the producer that has the gateway's writer in itself:",
        "what lies between the two is what the gateway adds.",
    ]
    for part in RUST:
        mine = [figure for figure in figures if figure["part"] == part]
        if not mine:
            continue
        on = machines.get(part, {})
        lines += [
            "",
            f"## {part.capitalize()}",
            "",
            f"{on.get('cpu')}, {on.get('cores')} cores, {on.get('system')}, at {on.get('commit')}.",
            "",
            "| case | metric | value | against | ratio |",
            "|---|---|---|---|---|",
            *map(shown, mine),
        ]
    (ROOT / "docs" / "benchmarks.md").write_text("\n".join(lines) + "\n")


def run(part: str) -> list[dict]:
    figures = [figure for bench in RUST[part] for figure in cargo(bench)]
    if part == "gateway":
        say("gateway")
        figures = figures_of([program("gateway-bench")]) + figures
        figures += gateway_peers(figures)
    if part == "router":
        figures += router_peers(figures)
    if part == "consumer":
        figures += consumer_peers()
    if part == "python":
        figures += python_figures()
    return figures


def main(wanted: str | None) -> None:
    if wanted is not None and wanted not in RUST:
        raise SystemExit(f"bench: there is no part {wanted!r}; parts are {', '.join(RUST)}")
    OUT.mkdir(parents=True, exist_ok=True)
    results, machines_file = OUT / "results.json", OUT / "machine.json"
    figures = json.loads(results.read_text()) if results.exists() else []
    machines = json.loads(machines_file.read_text()) if machines_file.exists() else {}
    parts = [wanted] if wanted else list(RUST)
    needed = sorted({name for part in parts for name in PROGRAMS[part]})
    if needed:
        say(f"building {', '.join(needed)} (release)")
        programs = [argument for name in needed for argument in ("--bin", name)]
        subprocess.run(["cargo", "build", "--quiet", "--release", *WORKSPACE, *programs], cwd=ROOT, check=True)
    for part in parts:
        begin = time.monotonic()
        fresh = run(part)
        figures = [figure for figure in figures if figure["part"] != part] + fresh
        machines[part] = machine()
        results.write_text(json.dumps(figures, indent=1) + "\n")
        machines_file.write_text(json.dumps(machines, indent=1) + "\n")
        write_page(figures, machines)
        say(f"{part}: {len(fresh)} figures in {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] else None)
