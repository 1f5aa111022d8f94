# What a person types. Everything that is needed is installed here and in packaging/prepare.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help run test check bench fuzz soak image deb rpm docs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(READY) ## start an agent here and hold a short conversation with it
	@PATH="$(CURDIR)/$(BIN):$$PATH" examples/conversation

test: $(READY) ## install what the tests need and run them all, a real guest included
	@packaging/prepare test deb rpm
	$(BIN)/pytest --numprocesses=logical --maxprocesses=4 --no-loadscope-reorder $(PYTEST_ARGS)

check: $(READY) ## lint, types, oldest Python, unit tests: under a minute
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/vermin --quiet --no-tips --violations -t=3.9- --eval-annotations --exclude-regex 'qga/(client|ctl)' qga commands
	$(BIN)/pytest -q tests/unit

bench: $(READY) ## measure against the original qemu-ga; writes tests/bench/RESULTS.md
	@packaging/prepare test
	$(BIN)/python -m tests.bench --python /usr/bin/python3 $(BENCH_ARGS)

fuzz: $(READY) ## try FUZZ_RUNS inputs (1000000), guided by coverage; a finding is kept
	@$(BIN)/python -m tests.fuzz --runs $(or $(FUZZ_RUNS),1000000) $(FUZZ_ARGS)

soak: $(READY) ## good and bad clients at one agent for SOAK_SECONDS (600)
	@$(BIN)/python -m tests.soak --seconds $(or $(SOAK_SECONDS),600) $(SOAK_ARGS)

image: $(READY) ## build the disk image of the test guest
	@packaging/prepare test
	$(BIN)/python -m tests.guest.image

deb: ## build Debian packages of the agent and of qgactl into dist/
	@packaging/prepare deb
	packaging/build-deb

rpm: ## build rpm packages likewise, for Fedora and its kin
	@packaging/prepare rpm
	packaging/build-rpm

docs: $(READY) ## make docs/commands.md, docs/top.svg and qga/ctl/arguments.py anew from the code
	PYTHONPATH=packaging $(BIN)/python -m qga_docs commands >docs/commands.md
	PYTHONPATH=packaging $(BIN)/python -m qga_docs top >docs/top.svg
	PYTHONPATH=packaging $(BIN)/python -m qga_docs arguments >qga/ctl/arguments.py.new
	mv qga/ctl/arguments.py.new qga/ctl/arguments.py

clean: ## remove what was made here, the cached guest image included
	rm -rf $(VENV) .cache build dist *.egg-info

$(READY): pyproject.toml
	@PYTHON=$(PYTHON) packaging/prepare run
	$(PYTHON) -m venv "$(VENV)"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[host,test,check]'
	@touch $(READY)
