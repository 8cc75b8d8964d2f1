# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv first.
#   PYTHON=python3.12    the interpreter that .venv is made with (3.11 to 3.13)
#   TORCH_INDEX=URL      a package index for torch alone, e.g. of CPU or CUDA builds
#   ARGS="..."           passed on to the program (demo) or to pytest (test, doctest)

PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=
WORKERS ?= 2

PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -qq
TORCH := $(shell sed -n 's/^\(torch==[^ ]*\).*/\1/p' constraints.txt)
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1# each worker, so that they do not fight

export TORCH_INDEX

.PHONY: help setup demo test bench lint format doctest notebooks wheel docs clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s%s\n", $$1, $$2}' Makefile

setup: .venv/.installed  ## make .venv with the pinned versions (a second call does nothing)

.venv/.installed: pyproject.toml constraints.txt
	@python=$(PYTHON); test ! -x .venv/bin/pip || python=$(PY); \
	  $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null || { \
	    echo "setup: Python 3.11, 3.12 or 3.13 is needed, but '$$python' is: $$($$python --version 2>&1 || true)"; \
	    echo "setup: name another, as in 'make $(or $(MAKECMDGOALS),setup) PYTHON=python3.11'," \
	         "and remove .venv if it was made with this one"; exit 1; } >&2
	@test -x .venv/bin/pip || { echo "setup 1/3: environment in .venv"; $(PYTHON) -m venv .venv; } || { \
	    echo "setup: '$(PYTHON) -m venv' failed; on Debian and Ubuntu install python3-venv" >&2; exit 1; }
	@echo "setup 2/3: $(TORCH) (a minute or more)"
	@$(PIP) install --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	@echo "setup 3/3: pyro_afslvm and the other pinned packages (a minute or more)"
	@$(PIP) install --constraint constraints.txt hatchling editables
	@$(PIP) install --constraint constraints.txt --no-build-isolation --editable '.[dev,bair,baselines,logging,parquet,sweep,video,zarr]'
	@touch $@

demo: setup  ## train five small models on moving digits, write report.html (5 minutes)
	@$(PY) -m inference.demo $(ARGS)

test: setup  ## run the test suite (about 7 minutes on 2 cores)
	@$(ONE_THREAD) $(PY) -m pytest -q -n $(WORKERS) --dist worksteal $(ARGS)

doctest: setup  ## run the examples in the library's docstrings
	@$(ONE_THREAD) $(PY) -m pytest -q -p tests.conftest --doctest-modules pyro_afslvm $(ARGS)

bench: setup  ## time training and sampling against references, write runs/speed.json (an hour)
	@mkdir -p runs && $(PY) -m benchmarks.speed --json runs/speed.json $(ARGS)

notebooks: setup  ## run the notebooks at smoke size; notebooks/execute.py makes their outputs
	@AFSLVM_SMOKE=1 $(ONE_THREAD) $(PY) -m pytest -q -n $(WORKERS) --nbmake notebooks $(ARGS)

lint: setup  ## ruff check, ruff format --check, mypy --strict
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy --strict pyro_afslvm

format: setup  ## let ruff format and fix what it can
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

wheel: setup  ## build the wheel, install it alone elsewhere, run the transform tests there
	@$(ONE_THREAD) bash scripts/check_wheel.sh

docs: .venv/.docs  ## build the site in docs/_build/html, without a network; a warning is an error
	@$(ONE_THREAD) $(PY) -m sphinx -q -b html -W --keep-going docs docs/_build/html
	@echo "open docs/_build/html/index.html"

.venv/.docs: .venv/.installed
	@echo "docs: Sphinx and its parts"
	@$(PIP) install --constraint constraints.txt --no-build-isolation --editable '.[docs]'
	@touch $@

clean:  ## remove .venv, caches and builds (runs/ stays)
	@rm -rf .venv build dist docs/_build docs/notebooks .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
