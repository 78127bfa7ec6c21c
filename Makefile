# Needs Python 3.11 or newer, and make. Everything else is installed into .venv by the targets
# themselves, pinned by hash, and only when what is pinned has changed.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:
.DELETE_ON_ERROR:
.NOTPARALLEL:

PYTHON ?= python3
VENV ?= .venv
DIR ?= definitions/
JOBS ?= 3
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet --quiet
PIN := $(BIN)/python -m piptools compile --quiet --no-strip-extras --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
	--allow-unsafe --resolver backtracking

# Stamps: younger than what is pinned means installed.
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
PROJECT := pyproject.toml engine/streamstack/__init__.py
CLIENTS := tests/clients/node_modules/.installed

# The documentation's site is built in an environment of its own.
SITE_BIN := .venv-docs/bin
SITE := .venv-docs/.installed

# So is Schemathesis, which `make schemathesis` tests definitions/ with.
SCHEMATHESIS_BIN := .venv-schemathesis/bin
SCHEMATHESIS := .venv-schemathesis/.installed

# The servers that benchmarks/ compares with have environments of their own.
BENCH := benchmarks/.venv
PEERS := $(BENCH)/.installed
LITELLM := benchmarks/.venv-litellm
LITELLM_INSTALLED := $(LITELLM)/.installed
PEERS_ON_NODE := benchmarks/node_modules/.installed

.PHONY: help serve test lint types pytest test-definitions fuzz soak compat schemathesis format schemas docs site build pin clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(RUNTIME) ## Serve definitions/ on http://127.0.0.1:8080 (DIR=another/folder, ARGS="--port 9000 --dev")
	@$(BIN)/streamstack serve $(DIR) $(ARGS)

test: lint types test-definitions pytest ## Check style and types, then run all tests

lint: $(DEV) ## Check style and layout (ruff)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { \
		$(BIN)/ruff format --check .; echo "run: make format" >&2; exit 1; }

types: $(DEV) ## Check types (mypy, strict)
	@$(BIN)/mypy

pytest: $(DEV) $(CLIENTS) ## Run only the tests (ARGS="tests/test_layers.py -k circle" selects tests, JOBS= sets the number of processes)
	@$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

test-definitions: $(DEV) ## Run the tests of definitions/ and of the examples, also with every fault
	@$(BIN)/streamstack test --faults definitions examples/clients examples/poem-page examples/plug-in

fuzz: $(DEV) ## Run randomized tests, with new cases each time
	@HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -n $(JOBS) tests/language tests/runtime $(ARGS)

soak: $(DEV) ## Serve under faults: clients that disconnect, servers and Redis that are killed (ARGS="--seconds 600")
	@$(BIN)/python -m tests.soak $(ARGS)
	@$(BIN)/python -m tests.soak_channels $(ARGS)

compat: $(DEV) ## Run the tests with the lowest and the newest versions allowed, on each Python (ARGS="--short --python 3.12")
	@$(BIN)/python -m tests.compat $(ARGS)

schemathesis: $(DEV) $(SCHEMATHESIS) ## Test the endpoints of definitions/ against their OpenAPI document (ARGS="--seed 1")
	@$(BIN)/python -m tests.schemathesis $(ARGS)

format: $(DEV) ## Format the code and apply automatic fixes
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

schemas: $(RUNTIME) ## Generate schemas/ from the declarations of the functions
	@$(BIN)/streamstack schema --out schemas

docs: $(RUNTIME) ## Generate docs/reference/ from the declarations
	@$(BIN)/python docs/generate.py

site: $(SITE) ## Build docs/ as a site with search into site/; broken links fail
	@$(SITE_BIN)/zensical build --clean --strict

bench: $(RUNTIME) $(PEERS) $(LITELLM_INSTALLED) $(PEERS_ON_NODE) ## Measure against other servers (ARGS="B1 B4 --rounds 1 --quick" chooses)
	@$(BENCH)/bin/python benchmarks/bench.py $(ARGS)

build: $(DEV) ## Build the wheel into dist/
	@$(BIN)/hatchling build --target wheel

pin: $(DEV) ## Update the pins in requirements/*.txt from *.in (ARGS=--upgrade for the newest versions)
	@$(PIP) install 'pip-tools>=7.5'
	@$(PIN) $(ARGS) --output-file requirements/runtime.txt requirements/runtime.in
	@$(PIN) $(ARGS) --output-file requirements/build.txt requirements/build.in
	@$(PIN) $(ARGS) --output-file requirements/dev.txt requirements/dev.in
	@$(PIN) $(ARGS) --output-file requirements/docs.txt requirements/docs.in
	@$(PIN) $(ARGS) --output-file requirements/schemathesis.txt requirements/schemathesis.in
	@$(PIN) $(ARGS) --output-file benchmarks/requirements.txt benchmarks/requirements.in
	@$(PIN) $(ARGS) --output-file benchmarks/litellm.txt benchmarks/litellm.in

clean: ## Remove build output, caches and .venv
	@rm -rf $(VENV) $(BENCH) $(LITELLM) .venv-docs .venv-schemathesis site benchmarks/node_modules dist .compat .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find engine tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Made with $(PYTHON) where that is new enough, else with the newest python3.N that starts at all.
# pip is the last that a new environment gets: where it is, the environment is whole.
$(BIN)/pip:
	@set -e; found=; \
	for python in $(PYTHON) python3.14 python3.13 python3.12 python3.11; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			found=$$python; break; \
		fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "streamstack needs Python 3.11 or newer: install it, or name it: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
		version=$$("$$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "$$found has no venv or ensurepip. On Debian and Ubuntu: apt-get install python$$version-venv" >&2; \
		exit 1; \
	fi; \
	echo "making $(VENV) with $$found" >&2; \
	"$$found" -m venv $(VENV)

$(RUNTIME): requirements/runtime.txt requirements/build.txt $(PROJECT) | $(BIN)/pip
	@echo "installing what the server needs into $(VENV)" >&2
	@$(PIP) install --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): requirements/runtime.txt requirements/build.txt requirements/dev.txt $(PROJECT) | $(BIN)/pip
	@echo "installing what the tests need into $(VENV)" >&2
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $(RUNTIME) $@

$(PEERS): benchmarks/requirements.txt | $(BIN)/pip
	@echo "installing the Python peers into $(BENCH)" >&2
	@test -x $(BENCH)/bin/pip || $(BIN)/python -m venv $(BENCH)
	@$(BENCH)/bin/python -m pip --disable-pip-version-check --no-input --quiet --quiet \
		install --require-hashes -r benchmarks/requirements.txt
	@touch $@

$(SITE): requirements/docs.txt | $(BIN)/pip
	@echo "installing the site generator into .venv-docs" >&2
	@test -x $(SITE_BIN)/pip || $(BIN)/python -m venv .venv-docs
	@$(SITE_BIN)/python -m pip --disable-pip-version-check --no-input --quiet --quiet \
		install --require-hashes -r requirements/docs.txt
	@touch $@

$(SCHEMATHESIS): requirements/schemathesis.txt | $(BIN)/pip
	@echo "installing Schemathesis into .venv-schemathesis" >&2
	@test -x $(SCHEMATHESIS_BIN)/pip || $(BIN)/python -m venv .venv-schemathesis
	@$(SCHEMATHESIS_BIN)/python -m pip --disable-pip-version-check --no-input --quiet --quiet \
		install --require-hashes -r requirements/schemathesis.txt
	@touch $@

# LiteLLM pins what it needs to single versions, others than ours.
$(LITELLM_INSTALLED): benchmarks/litellm.txt | $(BIN)/pip
	@echo "installing LiteLLM's proxy into $(LITELLM)" >&2
	@test -x $(LITELLM)/bin/pip || $(BIN)/python -m venv $(LITELLM)
	@$(LITELLM)/bin/python -m pip --disable-pip-version-check --no-input --quiet --quiet \
		install --require-hashes -r benchmarks/litellm.txt
	@touch $@

# Without npm the peers on Node are left out, and the report says so.
$(PEERS_ON_NODE): benchmarks/package.json benchmarks/package-lock.json
	@if command -v npm >/dev/null; then \
		echo "installing the peers on Node into benchmarks/node_modules" >&2; \
		npm ci --prefix benchmarks --no-audit --no-fund --loglevel=error >&2; \
	else mkdir -p benchmarks/node_modules; fi
	@touch $@

# The npm clients that read our endpoints. Where there is no Node their tests are skipped, and say so.
$(CLIENTS): tests/clients/package.json
	@if command -v node >/dev/null && command -v npm >/dev/null; then \
		echo "installing the npm clients of the tests into tests/clients/node_modules" >&2; \
		cd tests/clients && npm install --loglevel=error && touch node_modules/.installed; \
	else \
		echo "node or npm is missing: what npm clients make of our answers is NOT tested (apt-get install nodejs npm)" >&2; \
	fi
