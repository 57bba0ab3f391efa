# `make` lists the verbs. Needs Python 3.11+; a real Kafka needs Java 17 and Maven too.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := producers processors sinks
PROGRAMS := tests scripts $(wildcard benchmarks examples)
INPUTS := requirements.lock pyproject.toml scripts/install.py scripts/hatch_compile.py \
	$(shell find $(PACKAGES) -name '*.pyx' -o -name '*.pxd')
# Stamps of what is installed; everything holds the demo's part too.
ALL := $(VENV)/.callmeter-all
DEMO := $(if $(wildcard $(ALL)),$(ALL),$(VENV)/.callmeter-embedded)
ARGS ?=
# Tests run in this many processes, each with a Kafka and a `callmeter up` of its own.
JOBS ?= 2
# They start hundreds of programs. Where Python is told to write no compiled modules (an image may say
# so), each would compile hundreds of modules anew, for one to two seconds; these are kept apart.
COMPILED := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(CURDIR)/$(VENV)/pycache

.PHONY: help
help: ## List the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# --- install ---------------------------------------------------------------------------------

$(ALL): $(INPUTS)
	@test -n "$(PYTHON)" || { echo "callmeter needs Python 3.11 or newer on PATH" >&2; exit 78; }
	$(PYTHON) scripts/install.py --venv $(VENV)
	@touch $@

$(VENV)/.callmeter-embedded: $(INPUTS)
	@test -n "$(PYTHON)" || { echo "callmeter needs Python 3.11 or newer on PATH" >&2; exit 78; }
	$(PYTHON) scripts/install.py --venv $(VENV) --extras embedded
	@touch $@

.PHONY: install lock kafka-libs
install: $(ALL) ## Make .venv: all extras and the development tools, from the lock

lock: $(ALL) ## Write requirements.lock anew (ARGS=--upgrade to move versions)
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
		--no-annotate --all-extras --group dev $(ARGS) pyproject.toml -o requirements.lock
	@! grep -nE '://|^--' requirements.lock || { echo "the lock names a host" >&2; exit 1; }

kafka-libs: $(ALL) ## Fetch Apache Kafka's jars into deploy/kafka/libs (Java 17, Maven)
	$(BIN)/python -m callmeter.log.kafka_archive

# --- judge -----------------------------------------------------------------------------------

.PHONY: fmt lint types test chaos bench acceptance
fmt: $(ALL) ## Format the code and sort its imports
	$(BIN)/ruff check -q --select I --fix $(PACKAGES) $(PROGRAMS)
	$(BIN)/ruff format $(PACKAGES) $(PROGRAMS)

lint: $(ALL) ## Ruff, cython-lint, formatting and import contracts
	$(BIN)/ruff check $(PACKAGES) $(PROGRAMS)
	$(BIN)/ruff format --check $(PACKAGES) $(PROGRAMS)
	PATH=$(CURDIR)/$(BIN):$$PATH cython-lint --max-line-length 100 $(PACKAGES)
	$(BIN)/lint-imports --no-logo

types: $(ALL) ## mypy --strict over the three packages
	$(BIN)/mypy

# In the order of the folders: the long files of chaos and integration first, so that none is last alone.
test: $(ALL) ## Every test but the long chaos runs (ARGS="-k budget" for some, JOBS=0 in one process)
	$(COMPILED) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

chaos: $(ALL) ## The long, seeded chaos runs on a real Kafka (ARGS="--seed 7")
	$(COMPILED) CALLMETER_REQUIRE_KAFKA=1 $(BIN)/python -m pytest -m chaos --chaos long --timeout 7200 $(ARGS)

bench: $(ALL) ## Every benchmark in turn (NAME=meter for one)
	@for f in benchmarks/bench_$(or $(NAME),*).py; do echo "== $$f"; $(BIN)/python "$$f" $(ARGS); done

acceptance: $(ALL) ## Which rows of the acceptance table a passing test proves
	@$(BIN)/python scripts/acceptance.py $(ARGS)

# --- run -------------------------------------------------------------------------------------

.PHONY: demo demo-kafka up down
demo: $(DEMO) ## Meter a real trace of 19,366 calls on this machine and print its cost
	$(BIN)/callmeter demo $(ARGS)

demo-kafka: kafka-libs ## The same over a real Apache Kafka, two workers and a sink
	$(BIN)/callmeter demo --kafka $(ARGS)

up: ## Start the distributed shape with docker compose
	docker compose up --build --detach --wait

down: ## Stop it; its data stay
	docker compose down

# --- ship ------------------------------------------------------------------------------------

.PHONY: docs wheel ci clean
docs: $(ALL) ## Check that every link in the documentation leads somewhere
	$(BIN)/python scripts/check_docs.py

wheel: $(ALL) ## Build wheels, compiled and pure, and sdist into dist/, check them, install one bare
	$(BIN)/python scripts/check_wheel.py

ci: ## What CI runs
	bash .ci/run

clean: ## Remove what tools left; .venv and Kafka's jars stay
	rm -rf dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .demo
	find $(PACKAGES) $(PROGRAMS) -name __pycache__ -type d -prune -exec rm -rf {} +
