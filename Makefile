# Everything a developer or a visitor types. Needs Python >= 3.11 and make; the rest is fetched once, by hash.

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint fmt bench bench-routing bench-routing-live chaos crash-points openapi docs fuzz migrate lock clean

# Byte code is kept, whatever the shell says of it, and kept outside the sources: to compile everything takes longer than to start.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/.pycache

BIN := .venv/bin
DEMO_ARGS ?=
BENCH ?=
ROUTING ?=
MINUTES ?= 3
BUG ?=
TEST_ARGS ?= -n 4 --dist loadfile --no-loadscope-reorder

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

setup: ## Make .venv from requirements-dev.lock; does nothing when it is there already
	@./.ci/venv

demo: setup ## Run the guided tour on servers of its own: DEMO_ARGS="--once --state FILE"
	$(BIN)/kameng demo $(DEMO_ARGS)

test: setup ## Run all tests on servers of their own: TEST_ARGS="tests/rules -x"
	@$(BIN)/python -m tests.compiled
	$(BIN)/python -m pytest $(TEST_ARGS)

lint: setup ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: setup ## Sort imports and fix what can be fixed by machine
	$(BIN)/ruff check --fix .

bench: setup ## Measure all, or one: BENCH=accept|hot|connections|drain|scale|memory
	$(BIN)/python -m benchmarks $(BENCH)

bench-routing: setup ## Judge the router against its rivals: ROUTING="--quick"
	$(BIN)/python -m benchmarks.routing --out var/bench-routing $(ROUTING)

bench-routing-live: setup ## The router against real simulators over HTTP: outage, black hole, price, wallet, Redis flushed
	$(BIN)/python -m benchmarks.routing_live

chaos: setup ## Break everything under load and judge from outside: SEED=7 MINUTES=3 BUG=name VENDOR=yrapi
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(BUG),--bug $(BUG)) $(if $(VENDOR),--vendor $(VENDOR))

crash-points: setup ## Kill a process before and after every durable step, in every story that passes it
	$(BIN)/python -m tests.chaos.crash

openapi: setup ## Write openapi/*.yaml from the app
	$(BIN)/kameng openapi

docs: setup ## Build the documentation site, English and Chinese, into var/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

fuzz: setup ## Whatever fits the contract and whatever does not, signed, at every endpoint: MINUTES=30
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

migrate: setup ## Bring the database to the newest schema (KAMENG_DATABASE_OWNER_URL, else the embedded one)
	$(BIN)/kameng migrate

LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" pyproject.toml

lock: ## Write the lock files anew (needs uv)
	$(LOCK) --extra embedded --extra traces --extra anchors -o requirements.lock
	$(LOCK) --extra embedded --extra traces --extra anchors --group dev -c requirements.lock -o requirements-dev.lock
	$(LOCK) --extra traces --extra anchors -c requirements.lock -o deploy/requirements-image.lock

clean: ## Remove .venv and all caches; the data in var/ stays
	rm -rf .venv .venv-of-another-account.* .pycache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find src tests migrations benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
