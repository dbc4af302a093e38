# Every target sets up what it needs (scripts/setup; quick when nothing is missing). `make help` lists them.
SHELL := /bin/sh
PYTHON := .venv/bin/python
export PYTHONUNBUFFERED := 1
# Real clients that `make test` sees to; Ansible alone is half a gigabyte, `make compat` has all. A test without its client skips.
CLIENTS := python node ruby prometheus compose
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test vm pristine compat lint format bench lock manpages clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: ## what tare and the demo need: Debian packages, .venv, locked Python packages
	@scripts/setup

setup-dev: ## and what tests, linters and benchmarks need
	@scripts/setup --dev

demo: setup ## a guided tour: from a directory to an image to a container, and on to a second engine
	@$(PYTHON) scripts/demo.py

test: setup-dev lint ## linters and the whole test suite, as in CI (ARGS="-k name" to choose)
	-@scripts/clients $(CLIENTS)
	@$(PYTHON) -m pytest $(ARGS)

vm: ## tests on Debian's kernel in a virtual machine, with what yours may lack (ARGS="tests/network"); see scripts/vm
	@scripts/vm $(ARGS)

pristine: ## the demo and the tests as somebody new runs them, in a new minimal Debian (ARGS="sid"); see scripts/pristine
	@scripts/pristine $(ARGS)

compat: setup-dev ## real clients, docker-py's own tests, 20,000 made-up requests; writes docs/compatibility.md
	@scripts/clients
	@$(PYTHON) tests/clients/dockerpy_suite.py
	@TARE_FUZZ_REQUESTS=20000 $(PYTHON) -m pytest -q tests/clients/test_schema_fuzz.py
	@TARE_PEER=all TARE_RECORD=build/compatibility.json $(PYTHON) -m pytest -q; \
	status=$$?; $(PYTHON) scripts/compatibility.py && exit $$status  # what failed isn't claimed

lint: setup-dev ## ruff and mypy --strict
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy

format: setup-dev ## rewrites the source as `make lint` wants it
	@$(PYTHON) -m ruff check --fix --quiet . ; $(PYTHON) -m ruff format .

bench: setup-dev ## side by side with a real dockerd (ARGS="--rounds 20 --json out.json")
	@$(PYTHON) bench/bench.py $(ARGS)

lock: setup-dev ## pins the newest allowed versions again
	@scripts/lock

manpages: setup ## the manual pages, in build/man
	@$(PYTHON) scripts/manpages

clean: ## removes what the demo and the build made; .venv stays
	@python3 scripts/demo.py --clean
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
