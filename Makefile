# Every target prepares what it needs: `make demo` and `make test` work on a fresh machine with Python, pip and make.
# The environment is .venv; it is brought up to date when a lock file or pyproject.toml changes, and only then.

# The system's own interpreter first: it gets security updates, and it is built with optimisation, which those of version
# managers often are not (the relay is up to 1.5 times as fast on it).
PYTHON ?= $(shell for one in /usr/bin/python3 python3; do $$one -c 'import pip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; done; echo $$one)
ARGS ?=
# Tests wait for programs more than they compute: two files at once, in the order of their names, which puts the long
# ones first. Tests that are chosen by ARGS run in one process, as the start of another would cost more than it saves.
TEST_PROCESSES ?= 2
AT_ONCE := --numprocesses=$(TEST_PROCESSES) --dist=loadfile --no-loadscope-reorder
VENV := .venv
BIN := $(VENV)/bin
# Wheels only: building a source archive would run code that no hash in the lock files covers.
PIP := $(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check --no-input install --quiet
LOCKED := --require-hashes --only-binary=:all:
UV_VERSION := 0.13.9
UV := .cache/lock/bin/uv
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test soak train evaluate lint format types bench fuzz reference kafka kafka-stop lock wheel clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "  Arguments go in ARGS, another interpreter in PYTHON: make test PYTHON=python3.13 ARGS='-k policy -x'"

demo: $(VENV)/.runtime ## Run the relay on a mailbox of examples and show where every copy went
	@$(BIN)/consentry demo $(ARGS)

test: $(VENV)/.dev ## Run every test
	@$(BIN)/python -m pytest $(or $(ARGS),$(AT_ONCE))

soak: $(VENV)/.dev ## Run the long tests and the ledger under kills (an hour or so)
	@$(BIN)/python -m pytest -m soak $(ARGS)
	@$(BIN)/python tests/bench/soak_ledger.py 20

train: $(VENV)/.dev ## Fit the learned weights anew to tests/data (minutes)
	@$(BIN)/consentry train $(ARGS)

evaluate: $(VENV)/.dev ## Measure judgements on the messages that are kept back
	@$(BIN)/consentry evaluate tests/data/messages/heldout.jsonl tests/data/messages/unseen.jsonl $(ARGS)

lint: $(VENV)/.dev ## Check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(VENV)/.dev ## Format the code and make the safe repairs
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(VENV)/.dev ## Check types
	@$(BIN)/mypy

bench: $(VENV)/.dev ## Print the measured figures (minutes, wants a quiet machine)
	@set -e; for script in tests/bench/bench_*.py; do echo "== $$script"; $(BIN)/python "$$script" $(ARGS); done

fuzz: $(VENV)/.dev ## Run the mutation and hostile-message runs
	@set -e; for script in tests/fuzz/fuzz_*.py; do echo "== $$script"; $(BIN)/python "$$script" $(ARGS); done

reference: $(VENV)/.runtime ## Write the documents that are made from the program: commands, manual page, rules
	@$(BIN)/python deploy/reference.py $(ARGS)

kafka: ## Start an Apache Kafka on loopback and print its address (three: ARGS='--brokers 3')
	@$(PYTHON) deploy/kafka/local_kafka.py start $(ARGS)

kafka-stop: ## Stop what `make kafka` has started (and forget its data: ARGS=--remove)
	@$(PYTHON) deploy/kafka/local_kafka.py stop $(ARGS)

wheel: $(VENV)/.runtime ## Build dist/consentry-VERSION-py3-none-any.whl
	@$(BIN)/python -m hatchling build --target wheel

lock: $(UV) ## Write the lock files anew from pyproject.toml
	$(COMPILE) --upgrade --group build pyproject.toml --output-file requirements.lock
	$(COMPILE) --upgrade --group dev --constraint requirements.lock pyproject.toml --output-file requirements-dev.lock
	$(COMPILE) --upgrade --no-deps --group source --output-file requirements-source.lock

clean: ## Remove the environment, caches and everything built
	@[ ! -d .cache/kafka ] || $(PYTHON) deploy/kafka/local_kafka.py stop
	rm -rf $(VENV) .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find filter tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Without ensurepip (Debian splits it off) the interpreter's own pip still installs into the environment from outside.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11 or newer, or name one: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "consentry needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1 | head -n 1). Name another: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null || { echo "$(PYTHON) has no pip: install it (Debian: apt install python3-pip)" >&2; exit 1; }
	@$(PYTHON) -m venv --without-pip $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing consentry into $(VENV) …"
	@$(PIP) $(LOCKED) -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock requirements-source.lock $(VENV)/.runtime
	@echo "Installing the test tools into $(VENV) …"
	@$(PIP) $(LOCKED) -r requirements-dev.lock
	@$(PIP) --require-hashes --no-deps --no-build-isolation --use-pep517 -r requirements-source.lock
	@touch $@

$(UV):
	@$(PYTHON) -m venv --without-pip .cache/lock
	@$(PYTHON) -m pip --python .cache/lock/bin/python --disable-pip-version-check install --quiet uv==$(UV_VERSION)
