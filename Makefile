# Crosscut. `make help` lists the verbs. Needs git, make and Python >= 3.11; everything else is set up in .venv.
.DEFAULT_GOAL := help
SHELL := /bin/sh

# Some machines switch byte code off for every process; 2000 modules compiled at every start cost 10 s.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPATH := $(CURDIR)
export DAGSTER_HOME ?= $(CURDIR)/.dagster
export DAGSTER_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
export GIT_PYTHON_REFRESH := quiet

BIN := .venv/bin
# The first Python that really runs and is new enough (a version manager's shims may exist and fail).
PYTHON ?= $(shell for p in python3.12 python3.13 python3.11 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
UV := $(shell command -v uv 2>/dev/null || echo .tools/uv/bin/uv)
# Give a folder in the layout of docs/recordings.md to run the demo on real order books.
RECORDING ?=

.PHONY: help setup setup-live demo test nightly oracles lint format bench bench-long ui lock clean

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready ## prepare .venv from the hash-pinned lock

.venv/.ready: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Crosscut needs Python 3.11, 3.12 or 3.13 with venv; none of python3.11, python3.12, python3.13, python3 works here."; exit 1; }
	@command -v uv >/dev/null 2>&1 || test -x .tools/uv/bin/uv || { echo "installing uv into .tools/"; \
		$(PYTHON) -m venv .tools/uv && .tools/uv/bin/python -m pip install -q --disable-pip-version-check 'uv>=0.9,<1'; }
	@test -x $(BIN)/python || $(UV) venv -q --python $(PYTHON) .venv
	$(UV) pip sync -q --python $(BIN)/python --require-hashes requirements.lock
	@touch $@

setup-live: ## prepare .venv-live: only what `live.run` needs
	@$(MAKE) -s .venv/.ready
	@test -x .venv-live/bin/python || $(UV) venv -q --python $(PYTHON) .venv-live
	$(UV) pip sync -q --python .venv-live/bin/python --require-hashes requirements-live.lock

demo: setup ## the whole road on the embedded simulator; RECORDING=<folder> replays real books
	@$(BIN)/python -m pipelines.demo $(if $(RECORDING),--recording "$(RECORDING)")

test: setup ## the tests
	@$(BIN)/python -m pytest -n auto --dist loadfile

nightly: setup ## the long sweeps as well
	@$(BIN)/python -m pytest -n auto --dist loadfile -m ""

oracles: setup .venv-oracles/.ready ## the same orders through the exact tier and through hftbacktest, in an environment of its own
	@$(BIN)/python -m pytest tests/oracles

.venv-oracles/.ready: requirements-oracles.lock | .venv/.ready
	@test -x .venv-oracles/bin/python || $(UV) venv -q --python $(BIN)/python .venv-oracles
	$(UV) pip sync -q --python .venv-oracles/bin/python --require-hashes requirements-oracles.lock
	@touch $@

lint: setup ## ruff, mypy --strict, import contracts, secret scan
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tests.secrets

format: setup ## let ruff arrange the code
	@$(BIN)/ruff check --fix -q . ; $(BIN)/ruff format .

# A day of the lake, 10^8 frames, fits of millions of rows: an hour and more.
LONG_BENCHMARKS := lake memory sweep training
BENCHMARKS := $(filter-out __init__ in_polars peak real_books $(LONG_BENCHMARKS),$(notdir $(basename $(wildcard benchmarks/*.py))))

bench: setup ## benchmarks: measured, never asserted
	@for b in $(BENCHMARKS); do echo "== $$b"; $(BIN)/python -m benchmarks.$$b || exit 1; done

bench-long: setup ## the benchmarks that take an hour
	@for b in $(LONG_BENCHMARKS); do echo "== $$b"; $(BIN)/python -m benchmarks.$$b || exit 1; done

ui: setup ## start the Dagster UI and the MLflow UI on loopback
	@$(BIN)/python -m pipelines.ui

lock: setup ## resolve requirements.lock and requirements-live.lock anew
	@$(UV) pip compile -q --upgrade --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-annotate \
		--custom-compile-command "make lock" --group dev pyproject.toml -o requirements.lock
	@$(UV) pip compile -q --upgrade --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-annotate \
		--custom-compile-command "make lock" -c requirements.lock pyproject.toml -o requirements-live.lock
	@$(UV) pip compile -q --upgrade --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-annotate \
		--custom-compile-command "make lock" --group oracles -o requirements-oracles.lock

clean: ## remove environments and caches; the lake and MLflow stay
	@rm -rf .venv .venv-live .venv-oracles .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
