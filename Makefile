# The two commands of a newcomer: `make demo` and `make test`. The others are for those who stay.

SHELL := /bin/bash
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Everything but the Python module, which maturin builds. Always the same set: another one would
# resolve features anew and compile dependencies a second time.
WORKSPACE := --workspace --exclude headworks-python
# How much: records of the demo, seeds of the simulation, seconds of chaos. Each target has its default.
N ?=
# One part of the benchmarks or of the interop suite; all by default.
PART ?=
# For which processors the router's zip is; by default this machine's.
ARCH ?=

export HEADWORKS_VENV ?= $(abspath $(TARGET))/venv
WHEEL_VENV := $(abspath $(TARGET))/wheel-venv

.DEFAULT_GOAL := help
.PHONY: help build demo test test-rust test-python test-infra test-interop sim chaos bench venv wheel fmt lint lambda docs clean

help: ## This list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

build: ## Builds every program.
	@echo "headworks: building (some 400 crates the first time; a few minutes on two cores)" >&2
	$(CARGO) build $(WORKSPACE) --bins

demo: build ## The whole pipeline on the embedded stack; proves that no record is lost. N=100000
	@$(TARGET)/debug/headworks demo --records $(or $(N),100000)

test: test-rust test-python test-infra ## Every test of the project.

test-rust: venv build ## Unit, property, integration and end-to-end tests.
	$(CARGO) test $(WORKSPACE)

test-python: venv build wheel ## Golden vectors, a foreign gRPC client, and the wheel, against a running pipeline.
	$(HEADWORKS_VENV)/bin/python -m pytest -q -p no:cacheprovider tests/python/test_golden.py
	$(TARGET)/debug/with-pipeline $(HEADWORKS_VENV)/bin/python -m pytest -q -p no:cacheprovider tests/python/test_foreign_client.py
	$(TARGET)/debug/with-pipeline $(WHEEL_VENV)/bin/python -m pytest -q -p no:cacheprovider tests/python/bindings

test-infra: venv ## The templates: cfn-lint, sam validate and our own rules.
	infra/check.sh

sim: ## The consumers' leases under thousands of seeded schedules of crashes, delays and lost answers. N=5000
	HEADWORKS_SIM_RUNS=$(or $(N),5000) $(CARGO) test $(WORKSPACE) --test sim -- --nocapture

chaos: build ## Ten minutes of kills, reshards and repeats; each effect exactly once. N=600 (seconds)
	$(TARGET)/debug/chaos --seconds $(or $(N),600)
	HEADWORKS_SPOOL_KILLS=500 HEADWORKS_HOLD_SECONDS=60 $(CARGO) test $(WORKSPACE) --test spool_kills --test memory

test-interop: venv build ## Real KCL and KPL, Node, boto3 and other emulators beside ours (Java, Maven, Node). PART=kcl|kpl|node|differential|emulators
	tests/interop/run.sh $(PART)

bench: venv ## Measures everything beside its floor and its peers; writes docs/benchmarks.md. PART=gateway|router|consumer|python|local
	$(HEADWORKS_VENV)/bin/python tests/bench/bench.py $(PART)

venv:
	@tests/python/venv.sh >&2

wheel: venv ## The Python package as an abi3 wheel, in target/wheels.
	bindings/python/build.sh

fmt: ## Formats the code.
	$(CARGO) fmt --all

lint: ## Format, clippy without warnings, licences and bans.
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(WORKSPACE) --all-targets -- -D warnings
	$(CARGO) clippy -p headworks-python --features unified -- -D warnings
	$(CARGO) deny --log-level error check bans licenses sources

lambda: ## The router's zip for provided.al2023, in target/lambda. ARCH=x86_64|aarch64
	infra/package-router.sh $(if $(ARCH),--arch $(ARCH))

docs: ## The API documentation, without warnings.
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(WORKSPACE) --no-deps

clean: ## Removes what was built.
	$(CARGO) clean
