# Everything a contributor runs. `make` alone lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
BENCH  ?=
T      ?=
SECONDS ?= 600
# One process of pytest for each core, up to four: each has its own S3 server. T=-n0 runs all tests in one process.
PARALLEL := -n auto --maxprocesses=4

.DEFAULT_GOAL := help
.PHONY: help install browser demo examples test test-slow soak simulate matrix check fmt docs bench figures dist clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

install: $(READY) ## create .venv and install everything that development needs

demo: $(READY) ## train on images from a local S3 server, checkpoint to it, resume from it
	@$(BIN)/python examples/train_digits.py

examples: $(READY) ## run every script in examples/
	@for script in examples/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

browser:  # what tests/docs/test_site.py looks at the pages with; apt-get can install it for root alone
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing Chromium, which the tests of the site need"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	else echo "tests/docs/test_site.py needs Chromium, and will fail. To install it: sudo apt-get install chromium"; fi

# Tests start hundreds of interpreters, each of which would compile the sources again.
unexport PYTHONDONTWRITEBYTECODE

test: $(READY) browser ## run the tests (T="-k name" passes options to pytest)
	@$(BIN)/python -m pytest -q $(PARALLEL) --dist=loadfile $(T)

test-slow: $(READY) browser ## run the tests that take minutes or gigabytes
	@$(BIN)/python -m pytest -q -m slow --timeout=900 $(PARALLEL) --dist=worksteal $(T)

soak: $(READY) ## read and save through a proxy that misbehaves, watching for leaks (SECONDS=600)
	@$(BIN)/python -m tests.soak --seconds $(SECONDS)

simulate: $(READY) ## many clients at a server that admits few: do they share it fairly?
	@$(BIN)/python -m benchmarks.simulate

matrix: $(READY) browser ## run the tests on CPython 3.10 to 3.13, as far as they are installed (T="tests/wire")
	@$(BIN)/python -m tests.matrix -- $(T)

check: $(READY) ## ruff, strict mypy on src, import layers, figures in the documents
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "not formatted; run: make fmt"; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m benchmarks.figures --check

fmt: $(READY) ## format the code and apply the safe fixes
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

docs: $(READY) ## write the site, with the API reference, to build/docs/; a broken link is an error
	@$(BIN)/python -m website

bench: $(READY) ## compare with the native connector, litdata and the limit (BENCH=name runs one)
	@$(BIN)/python -m benchmarks $(BENCH)

figures: $(READY) ## write what the last whole benchmark found into the documents
	@$(BIN)/python -m benchmarks.figures

dist: $(READY) ## build the wheel and the sdist in dist/, and check them
	@$(BIN)/python -m tests.dist

clean: ## remove .venv and everything built
	@rm -rf $(VENV) .venv-peer .venv-litdata build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(READY): pyproject.toml requirements-dev.txt
	@echo "creating $(VENV) and installing requirements-dev.txt (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
