# The commands that people type. What they need is installed here and by packaging/prepare.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# With what `make run` needs; with all that development needs.
RUN    := $(VENV)/.run
READY  := $(VENV)/.ready
# Many tests wait for a guest or for time to pass: one more than there are processors.
WORKERS := $(shell expr $$(nproc) + 1)

.DEFAULT_GOAL := help
.PHONY: help run test guest guests check bench fuzz soak image deb rpm dist pyz docs dashboard clean

help: ## list all targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(RUN) ## start an agent on this machine and send it a few requests
	@PATH="$(CURDIR)/$(BIN):$$PATH" examples/conversation

test: $(READY) ## run all tests, including those in VMs; installs what they need
	@packaging/prepare test deb rpm
	$(BIN)/pytest --numprocesses=$(WORKERS) --maxprocesses=4 --no-loadscope-reorder $(PYTEST_ARGS)

guest: $(READY) ## boot a test VM with the agent and keep it running until ^C
	@packaging/prepare guest
	@$(BIN)/python -m tests.guest

guests: $(READY) ## test in VMs of all releases, inits and architectures; slow
	@packaging/prepare test guests deb
	QGA_TEST_GUESTS=all $(BIN)/pytest --numprocesses=2 --no-loadscope-reorder tests/guest/matrix $(PYTEST_ARGS)

check: $(READY) ## run linters, type checker and unit tests; under a minute
	@packaging/prepare check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@if [ -x $(BIN)/oxlint ]; then $(BIN)/oxlint --config=cockpit/.oxlintrc.json cockpit; \
	else echo "cockpit/ is not linted: oxlint has no wheel for this machine"; fi
	$(BIN)/mypy
	$(BIN)/vermin --quiet --no-tips --violations -t=3.9- --eval-annotations --exclude-regex 'qga/(client|ctl|integrations|mcp)' qga commands
	$(BIN)/pytest -q --numprocesses=$(WORKERS) --maxprocesses=4 tests/unit

bench: $(READY) ## compare with QEMU's agent; updates tests/bench/RESULTS.md
	@packaging/prepare test
	$(BIN)/python -m tests.bench --python /usr/bin/python3 $(BENCH_ARGS)
	$(BIN)/python -m tests.bench.beyond
	$(BIN)/python -m tests.clients.side_by_side

fuzz: $(READY) ## feed FUZZ_RUNS (1000000) random inputs to the parsers
	@$(BIN)/python -m tests.fuzz --runs $(or $(FUZZ_RUNS),1000000) $(FUZZ_ARGS)

soak: $(READY) ## serve good and hostile clients for SOAK_SECONDS (600)
	@$(BIN)/python -m tests.soak --seconds $(or $(SOAK_SECONDS),600) $(SOAK_ARGS)

image: $(READY) ## build the disk image of the test VM
	@packaging/prepare guest
	$(BIN)/python -m tests.guest.image

deb: ## build Debian packages of agent, qgactl and Cockpit page in dist/
	@packaging/prepare deb
	packaging/build-deb

rpm: ## build RPM packages of agent, qgactl and Cockpit page in dist/
	@packaging/prepare rpm
	packaging/build-rpm

dist: $(READY) ## build sdist and wheel in dist/, and check them
	@PYTHON=$(BIN)/python packaging/build-dist

pyz: ## build dist/qga.pyz: the agent as one file that needs only Python
	@packaging/prepare run
	packaging/build-pyz

docs: $(READY) ## regenerate the files that are made from the code
	PYTHONPATH=packaging $(BIN)/python -m qga_docs commands >docs/commands.md
	$(BIN)/python -m tests.differences >docs/differences.md
	PYTHONPATH=packaging $(BIN)/python -m qga_docs top >docs/top.svg
	PYTHONPATH=packaging $(BIN)/python -m qga_docs arguments >qga/ctl/arguments.py.new
	mv qga/ctl/arguments.py.new qga/ctl/arguments.py
	$(BIN)/python packaging/hardened.py
	PYTHONPATH=packaging $(BIN)/python -m qga_docs standard >qga/plugin/standard.py.new
	mv qga/plugin/standard.py.new qga/plugin/standard.py

dashboard: $(READY) ## draw docs/grafana.png: the dashboard with data of a test VM
	@packaging/prepare test
	$(BIN)/python -m tests.ecosystem.observed

clean: ## remove everything built here, including the cached VM images
	rm -rf $(VENV) .cache build dist *.egg-info

$(RUN): pyproject.toml
	@PYTHON=$(PYTHON) packaging/prepare run
	@packaging/venv "$(PYTHON)" $(VENV) host
	@touch $@

$(READY): pyproject.toml
	@PYTHON=$(PYTHON) packaging/prepare run
	@packaging/venv "$(PYTHON)" $(VENV) host,test,check
	@touch $(RUN) $@
