# `make demo` and `make test` work on a new machine: Python 3.11 or later with pip and venv is all they ask for.
PYTHON ?= python3
BIN    := .venv/bin
DEMO   ?= demo

.PHONY: setup demo test check lock clean

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[chess,dev]'
	touch $@

demo: setup
	$(BIN)/python -m pipelines.demo $(DEMO)

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Takes the versions now in .venv as the pinned ones.
lock: setup
	$(BIN)/pip freeze --exclude-editable | sed -e 's/+cpu$$//' > constraints.txt

clean:
	rm -rf .venv $(DEMO)
