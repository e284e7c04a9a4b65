# Needs nothing but Python 3.11 and make; everything else is installed into .venv.
# pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, PIP_NO_INDEX, ...) are honoured as they are.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install study test lint check format timing docs notebook clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed, $$($(PYTHON) --version) was found: make PYTHON=python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,ifeval,gguf,ray]'
	@touch $@

install: $(VENV)/.installed  ## set up .venv

study: $(VENV)/.installed  ## run the study (ARGS="--model DIR ..." for your own)
	$(BIN)/prunelab study $(ARGS)

test: $(VENV)/.installed  ## run the tests
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

lint: $(VENV)/.installed  ## format, lint, types and generated lists; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tools.generate_lists --check

check: lint test  ## run every check that a change must pass

format: $(VENV)/.installed  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

timing: $(VENV)/.installed  ## measure the speed claims
	@for script in $(filter-out timing/common.py,$(wildcard timing/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

docs: $(VENV)/.installed-docs  ## build the documentation into site/; warnings are errors
	$(BIN)/python -m mkdocs build --strict --quiet

notebook: $(VENV)/.installed-docs  ## run the documentation's notebook
	$(BIN)/jupyter-execute --timeout 600 docs/notebooks/first_cut.ipynb

clean:  ## remove generated files
	rm -rf $(VENV) build dist site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
