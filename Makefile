# Everything the project needs on a machine, its own files install.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
UV_VERSION := 0.13.9
SYNCED := .venv/.synced

.DEFAULT_GOAL := help

help: ## print this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: $(SYNCED) ## install the locked dependencies into .venv

$(SYNCED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and sys.version_info[:2] != (3, 12))' \
	  || { echo "Stackyard needs Python 3.11 or 3.12; say which: make PYTHON=/path/to/python3.11 setup"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { \
	  echo "python3 -m venv does not work here; on Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable . uv==$(UV_VERSION)
	@touch $@

lock: ## resolve the dependencies again into requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade pyproject.toml --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-header --output-file requirements.lock

demo: setup ## one deployment from nothing to a streamed answer and back (DEMO=keep leaves it running)
	@$(BIN)/stackyard demo

check: setup ## ruff, mypy --strict, import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Two processes: a test that waits for one of its own leaves the processor to the other. `worksteal` gives each a half in
# the files' order, so what modules and sessions share is made about once, and who is done early takes from the other's
# end; `loadfile` would leave one with the last long file. TEST_PROCESSES=0 runs all in one process.
TEST_PROCESSES ?= 2
PYTEST := $(BIN)/pytest -q -n $(TEST_PROCESSES) --dist worksteal

unit: setup ## tests that need nothing
	$(PYTEST) -m "not integration and not e2e" tests

integration: setup ## tests against real servers, which they install and start
	$(PYTEST) -m integration tests

e2e: setup ## HTTP in, a serving model out; workers killed half-way
	$(PYTEST) -m e2e tests

postgres: setup ## the tests that keep something in the database, and some end to end, on PostgreSQL
	STACKYARD_TEST_DATABASE=postgres $(PYTEST) tests

test: check unit integration e2e postgres ## all of it, fast layers first

conformance: setup ## both engines on the same stacks; needs the official pulumi on PATH
	$(BIN)/pytest -q -rs --tb=native --timeout 900 tests/engine/automation/test_conformance.py tests/engine/automation/conformance \
	  tests/engine/deploy/command/test_official_flags.py

fuzz: setup ## the properties on thousands of examples, every kill place five times; prints seeds and repros
	$(BIN)/pytest -q --hypothesis-profile=fuzz --hypothesis-show-statistics --timeout 3000 \
	  tests/engine/deploy/test_crash_properties.py tests/engine/reconcilers tests/engine/sandbox/test_cloud.py
	KILL_ROUNDS=5 $(BIN)/pytest -q --timeout 3000 tests/engine/deploy/backend/test_killed.py
	KILL_ROUNDS=5 $(BIN)/pytest -q -m e2e tests/e2e/test_kill_worker.py

bench: setup ## the numbers of benchmarks/README.md
	$(BIN)/stackyard bench stacks

.PHONY: help setup lock demo check unit integration e2e postgres test conformance fuzz bench
