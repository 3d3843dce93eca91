"""Records, errors and options: nothing is contacted."""

import ast
import datetime
import importlib.resources
import os
import pickle
import re
import sys

import pytest

import headworks
from headworks import errors
from support import BINDING, UTC


def test_a_record_shows_what_it_was_made_of():
    record = headworks.Record("session-42", b"\x00\xff", {"type": "click", "tenant": "acme"}, 7)
    assert record.key == "session-42"
    assert record.data == b"\x00\xff" and type(record.data) is bytes
    assert record.headers == {"type": "click", "tenant": "acme"}
    assert record.header_items() == [("type", "click"), ("tenant", "acme")]
    assert record.explicit_hash_key == 7
    assert record.traceparent is None and record.created is None
    assert record == headworks.Record("session-42", bytearray(b"\x00\xff"), {"type": "click", "tenant": "acme"}, 7)
    assert record != headworks.Record("session-42", b"")
    assert "session-42" in repr(record) and "<2 bytes>" in repr(record)
    with pytest.raises(AttributeError):
        record.key = "other"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("", b""), "key-empty", "1 to 256"),
        (("k" * 257, b""), "key-too-long", "257 characters, the limit is 256"),
        (("k", b"", {"Content Type": "x"}), "header-name-invalid", "content-type"),
        (("k", b"", {"hw-t": "x"}), "header-name-reserved", "hw-"),
        (("k", b"", {"v": "x" * 2049}), "header-value-too-long", "2049 bytes, the limit is 2048"),
        (("k", b"", {f"h{i}": "" for i in range(33)}), "headers-too-many", "32"),
        (("k", b"", {c: "x" * 2048 for c in "abcd"}), "headers-too-large", "8192"),
        (("k", b"", None, -1), "hash-key-invalid", "2^128 - 1"),
        (("k", b"", None, 2**128), "hash-key-invalid", "340282366920938463463374607431768211456"),
    ],
)
def test_a_bad_record_names_value_limit_and_remedy(arguments, code, text):
    with pytest.raises(errors.InvalidInput) as caught:
        headworks.Record(*arguments)
    error = caught.value
    assert (error.code, error.retryable, error.outcome_unknown) == (code, False, False)
    assert text in str(error)
    assert isinstance(error, ValueError) and isinstance(error, headworks.HeadworksError)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("k", "text"), "encode"),
        (("k", 12), "int, not bytes"),
        (("k", b"", {"n": 1}), "header value 1 is int, not str"),
        (("k", b"", {1: "n"}), "header name 1 is int, not str"),
        (("k", b"", ["type"]), "dict"),
        ((None, b""), "str"),
    ],
)
def test_a_wrong_type_is_a_type_error(arguments, text):
    with pytest.raises(TypeError, match=text):
        headworks.Record(*arguments)


def test_exceptions_have_one_base_and_travel_between_processes():
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), headworks.HeadworksError)
    error = errors.Unavailable("no gateway", "gateway-unreachable", True, False)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is errors.Unavailable
    assert (str(copy), copy.code, copy.retryable, copy.outcome_unknown) == ("no gateway", "gateway-unreachable", True, False)


def classes():
    """Code to class, as the binding chooses it."""
    body = (BINDING / "src" / "error.rs").read_text().split("fn class(", 1)[1].split("\n}\n", 1)[0]
    arms = re.findall(r'((?:"[a-z-]+"\s*\|?\s*)+)=>\s*\{?\s*"(\w+)"', body)
    codes = [(code, name) for pattern, name in arms for code in re.findall(r'"([a-z-]+)"', pattern)]
    assert len(codes) == len(dict(codes)), "a code is listed twice"
    # Nothing of the function was overlooked.
    literals = sorted(re.findall(r'"([^"]+)"', body))
    assert sorted([code for code, _ in codes] + [name for _, name in arms] + ["HeadworksError"]) == literals
    return dict(codes)


def test_every_class_is_raised():
    assert set(classes().values()) | {"HeadworksError"} == set(errors.__all__)


# Sections of docs/errors/README.md whose codes a Python program never meets, and single codes of other sections.
ELSEWHERE = {
    "HTTP",
    "Router: route table",
    "Router: function and dead letters",
    "Embedded stack: start and stop",
    "Embedded stack: event source mapping and functions",
    "Embedded stack: Kinesis",
}
NOT_IN_PYTHON = {
    # The gateway does not start, or ends, or reloads, with these.
    "address-in-use",
    "audit-log-unwritable",
    "jwks-invalid",
    "key-file-invalid",
    "listen-unencrypted",
    "protection-keys-invalid",
    "protection-key-unavailable",
    "reload-needs-restart",
    "spool-damaged",
    "spool-in-use",
    "spool-unusable",
    "tls-invalid",
    "listen-exposed",
    "listen-failed",
    "serve-failed",
    "stream-unreadable",
    # Logged and counted, and no exception.
    "checkpoint-trimmed",
    "shard-expired",
    # A consumer in Python has no handler, no effects, and checkpoints by itself.
    "checkpoint-not-delivered",
    "effects-refused",
    "effects-too-large",
    "handler-failed",
    # Resets, replays, and the reading of protected fields, are not in the package.
    "checkpoint-moved",
    "protected-field-changed",
    "protection-key-unknown",
    "replay-range-invalid",
    "replay-token-invalid",
    "workers-alive",
    # The binding installs no subscriber, and an export that fails at exit is no exception.
    "telemetry-already-installed",
    "telemetry-flush-failed",
}
# Faults of Headworks itself: nothing that a caller could do about them has a class.
FAULTS = {"internal", "consumer-internal", "telemetry-no-runtime"}


def test_every_code_that_may_reach_python_has_a_class():
    pages = (BINDING.parents[1] / "docs" / "errors" / "README.md").read_text().split("\n## Codes\n", 1)[1]
    sections = {}
    for section in re.split(r"^### ", pages, flags=re.MULTILINE)[1:]:
        title, rest = section.split("\n", 1)
        sections[title.strip()] = set(re.findall(r"^\| \[`([a-z0-9-]+)`\]", rest, re.MULTILINE))
    assert all(sections.values()) and ELSEWHERE <= sections.keys(), sorted(sections)
    reaching = set().union(*(codes for title, codes in sections.items() if title not in ELSEWHERE))
    assert NOT_IN_PYTHON | FAULTS <= reaching, "not a code any more"
    table, own = classes(), set(own_codes())
    assert reaching - NOT_IN_PYTHON - FAULTS == table.keys() - own
    # What the binding says itself, beyond the codes that have a page.
    assert own <= table.keys() and not own & reaching


def own_codes():
    """The codes of the package's own that its README explains: each with class and retryable."""
    rows = re.findall(r"^\| `([a-z-]+)` \| `(\w+)` \|.*\| (yes|no) \|$", (BINDING / "README.md").read_text(), re.MULTILINE)
    return {code: (name, retryable == "yes") for code, name, retryable in rows}


def test_the_readme_explains_the_codes_of_the_package():
    source = (BINDING / "src" / "error.rs").read_text()
    made = set(re.findall(r'Self::new\(\s*"([a-z-]+)"', source))
    # The producer SDK has this one, too, and a page.
    assert made - {"producer-closed"} == own_codes().keys()
    assert {code: name for code, (name, _) in own_codes().items()}.items() <= classes().items()
    assert [code for code, (_, retryable) in own_codes().items() if retryable] == ["runtime-not-started"]


def test_the_stubs_name_what_there_is():
    package = importlib.resources.files("headworks")
    assert (package / "py.typed").is_file()
    stubs = ast.parse((package / "_headworks.pyi").read_text())
    native = sys.modules["headworks._headworks"]
    checked = 0
    for node in stubs.body:
        if isinstance(node, ast.FunctionDef):
            assert callable(getattr(native, node.name))
        # What exists for the type checker only derives from TypedDict.
        if not isinstance(node, ast.ClassDef) or "TypedDict" in map(ast.unparse, node.bases):
            continue
        told = {member.name for member in node.body if isinstance(member, ast.FunctionDef)}
        there = {name for name in vars(getattr(native, node.name)) if not name.startswith("__")}
        assert there == {name for name in told if not name.startswith("__")}, node.name
        assert all(hasattr(getattr(native, node.name), name) for name in told), node.name
        checked += 1
    assert checked == 7
    for name in headworks.__all__:
        assert hasattr(headworks, name)


@pytest.mark.parametrize(
    ("arguments", "keywords", "text"),
    [
        (("ab", "orders"), {}, "3 to 247"),
        (("my app", "orders"), {}, "my app"),
        (("app", ""), {}, "stream"),
        (("app", "orders"), {"start": "EARLIEST"}, "TRIM_HORIZON"),
        (("app", "orders"), {"start": datetime.datetime(2026, 1, 1)}, "time zone"),
        (("app", "orders"), {"start": datetime.datetime(1960, 1, 1, tzinfo=UTC)}, "1970"),
        (("app", "orders"), {"take_over_after": 0.5}, "take_over_after"),
        (("app", "orders"), {"checkpoint_interval": -1}, "zero or more"),
        (("app", "orders"), {"max_unacknowledged": 0}, "max_unacknowledged"),
        (("app", "orders"), {"max_unacknowledged": -1}, "max_unacknowledged is -1; it takes a number from 0"),
        (("app", "orders"), {"dedup_window": -1}, "dedup_window is -1; it takes seconds, zero or more"),
        (("app", "orders"), {"dedup_window": 900.5}, 'dedup_window "900.5s" must be from 0ns to 900s'),
        (("app", "orders"), {"dedup_max_identities": 0}, 'dedup_max_identities "0" must be from 1 to 100000000'),
        (("app", "orders"), {"dedup_max_identities": 10**9}, "from 1 to 100000000"),
        (("app", "orders"), {"dedup_max_identities": -1}, "dedup_max_identities is -1; it takes a number from 0"),
        (("app", "orders"), {"dedup_max_identities": 10**30}, f"dedup_max_identities is {10**30}"),
        (("app", "orders"), {"dedup_window": 10**400}, "dedup_window is 1000"),
        (("app", "orders"), {"undecodable": "skip"}, "deliver_raw"),
        (("app", "orders"), {"worker_table": "app"}, "of their own"),
    ],
)
@pytest.mark.parametrize("kind", [headworks.Consumer, headworks.AsyncConsumer])
def test_a_bad_consumer_is_refused_at_once(kind, arguments, keywords, text):
    with pytest.raises(errors.InvalidInput, match=text):
        kind(*arguments, **keywords)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: headworks.Consumer("app", "orders", starts="LATEST"), "starts"),
        (lambda: headworks.Consumer("app", "orders", region=1), "region"),
        (lambda: headworks.Consumer("app", "orders", dedup_window=datetime.timedelta(seconds=1)), "dedup_window"),
        (lambda: headworks.Consumer("app", "orders", dedup_max_identities=1.5), "dedup_max_identities"),
        (lambda: headworks.Consumer("app"), "stream"),
        (lambda: headworks.Producer(time_out=1), "time_out"),
        (lambda: headworks.Producer(timeout="1"), "timeout"),
    ],
)
def test_a_wrong_argument_is_a_type_error(make, text):
    with pytest.raises(TypeError, match=text):
        make()


def test_a_consumer_without_a_region_says_so(monkeypatch):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(errors.InvalidInput, match="AWS_REGION"):
        next(headworks.Consumer("app", "orders", endpoint_url="http://127.0.0.1:9"))
