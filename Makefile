# One entry point; continuous integration uses the same names.  Needs make and Python 3.11 or newer.

.DEFAULT_GOAL := help
SHELL := /bin/sh

# The first on PATH that is new enough and can make virtual environments.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 /usr/bin/python3; do \
	if $$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	then command -v $$python; break; fi; done)
VENV ?= .venv
PYTEST_ARGS ?=
# `make bench OUT=docs/benchmarks` makes the page that is published; BENCH_ARGS=--quick tries all of it.
OUT ?= build/bench
BENCH_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
RUNTIME := $(VENV)/.runtime-installed
DEV := $(VENV)/.dev-installed
# The clients of other systems have an environment of their own: none of their needs is one of ours.
THIRDPARTY := .venv-thirdparty/.installed

# What `make test` leaves out: what needs more than this host's kernel, or more time than it has.
HOST_ONLY := not slow and not benchmark and not docker and not network and not ray and not thirdparty

# One worker for each processor.  A file's tests stay together: they share what they are slow to make.
SIDE_BY_SIDE := --numprocesses auto --dist loadfile

# Compiled at the installation, where there is a C compiler.
COMPILED := $(wildcard src/sandpool/backends/native/template/*.[ch])

CHECKS := format lint mypy pyright contracts spelling fragments

.PHONY: help setup thirdparty demo test test-unit test-slow test-thirdparty test-docker test-all check bench docs lock clean $(CHECKS:%=check-%)

help:  ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(DEV)  ## Make .venv from the lock, with everything to work on sandpool

thirdparty: $(THIRDPARTY)  ## Make .venv-thirdparty, with the clients of other systems

demo: $(RUNTIME)  ## Run the main job end to end on this machine
	$(BIN)/sandpool demo

test: $(DEV)  ## Test all that needs no more than this host's kernel (three to four minutes)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "$(HOST_ONLY)" $(PYTEST_ARGS)

test-unit: $(DEV)  ## Test without any sandbox (seconds)
	$(BIN)/python -m pytest -m "$(HOST_ONLY) and not namespaces" $(PYTEST_ARGS)

test-slow: $(DEV)  ## Test what `make test` leaves out because it takes its time
	$(BIN)/python -m pytest -m "slow and $(subst not slow and ,,$(HOST_ONLY))" $(PYTEST_ARGS)

test-thirdparty: $(DEV) $(THIRDPARTY)  ## Test with the clients of other systems
	$(BIN)/python -m pytest -m thirdparty $(PYTEST_ARGS)

test-docker: $(DEV)  ## Test on the Docker Engine that DOCKER_HOST names, by default this host's
	$(BIN)/python -m pytest -m docker $(PYTEST_ARGS)

test-all: $(DEV) $(THIRDPARTY)  ## Test everything that this host can run; the skips say why
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(DEV)  ## Check format, lint, types, import contracts, spelling and changelog fragments
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target $(CHECKS:%=check-%)

check-format: $(DEV)
	$(BIN)/ruff format --check --output-format concise .

check-lint: $(DEV)
	$(BIN)/ruff check .

check-mypy: $(DEV)
	$(BIN)/mypy

check-pyright: $(DEV)
	$(BIN)/pyright

check-contracts: $(DEV)
	$(BIN)/lint-imports --no-cache --no-logo

check-spelling: $(DEV)
	$(BIN)/codespell

check-fragments: $(DEV)
	$(BIN)/python -m pytest -q --noconftest tests/test_changelog.py

bench: $(DEV)  ## Run the benchmark suite (a quarter of an hour) and make its page in OUT
	$(BIN)/sandpool bench --out $(OUT) $(BENCH_ARGS)

docs: $(DEV)  ## Test the documentation
	$(BIN)/python -m pytest -q tests/test_docs.py tests/test_examples.py tests/test_public_api.py

lock:  ## Make requirements/ anew from pyproject.toml
	$(call need-python)
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip --disable-pip-version-check --quiet install uv
	build/lock/bin/uv $(COMPILE) --upgrade --group dev --output-file requirements/dev.txt
	build/lock/bin/uv $(COMPILE) --constraint requirements/dev.txt --output-file requirements/runtime.txt
	build/lock/bin/uv $(PIN) --upgrade requirements/thirdparty.in --output-file requirements/thirdparty.txt

# Extras stay in the lock: without them pip asks an index for the newest `name[extra]` before it sees the
# pin of `name`, and refuses that release for having no hash here.
PIN := pip compile --quiet --universal --python-version 3.11 --no-strip-extras \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header
COMPILE := $(PIN) pyproject.toml --extra server --group build

clean:  ## Remove what the other targets made
	rm -rf $(VENV) $(dir $(THIRDPARTY)) build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

define need-python
@test -n "$(PYTHON)" || { echo "sandpool needs Python 3.11 or newer with venv" \
	"(Debian: apt-get install python3-venv); or say make PYTHON=/path/to/python3" >&2; exit 1; }
endef

$(BIN)/python:
	$(call need-python)
	$(PYTHON) -m venv $(VENV)

# The package is installed without build isolation: its build back end is in the lock like the rest.
$(RUNTIME): requirements/runtime.txt pyproject.toml hatch_build.py $(COMPILED) | $(BIN)/python
	$(PIP) install --require-hashes -r requirements/runtime.txt
	$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

$(DEV): requirements/dev.txt $(RUNTIME)
	$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

$(THIRDPARTY): requirements/thirdparty.txt
	$(call need-python)
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $<
	@touch $@
