# `make demo` and `make test` work on a new machine: Python 3.11 or later with pip and venv is all they ask for.
PYTHON ?= python3
BIN    := .venv/bin
DEMO   ?= demo
SECONDS ?= 120
# Six blocks of the first scan that no training sees; the second scan, of another energy, is whole.
BLOCKS := z=2:10,y=24:44,x=50:70 z=12:20,y=50:70,x=20:40 z=20:28,y=70:90,x=56:76 \
          z=6:14,y=60:80,x=80:100 z=18:26,y=20:40,x=64:84 z=10:18,y=28:48,x=84:104

# The soak kills commands at this many seeded moments, with POINTS=… and SEED=… others; EXAMPLES is for the state machine.
POINTS   ?= 1000
SEED     ?= 0
EXAMPLES ?= 2000
BENCH    ?= bench
# Where the real files lie that `make reconstruction` measures on; benchmarks/cases.py names them.
DATA     ?=

.PHONY: setup demo test check soak bench bench-engine reconstruction lock clean

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[chess,heif,scale,bench,dev]'
	touch $@

# What a first user would type. SECONDS of training are most of it.
demo: setup
	$(BIN)/aunn-data sample $(DEMO)/things --quiet
	$(BIN)/aunn-data ingest $(DEMO)/things --corpus $(DEMO)/corpus
	$(BIN)/aunn-data holdout blocks --corpus $(DEMO)/corpus --record scans/scroll_54keV.nii.gz $(BLOCKS:%=--region %)
	$(BIN)/aunn-data build-corpus --corpus $(DEMO)/corpus
	$(BIN)/aunn-model train --corpus $(DEMO)/corpus --out $(DEMO)/run --seconds $(SECONDS)
	$(BIN)/aunn-model reconstruct $(DEMO)/run --holdout blocks --out $(DEMO)/restored

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

soak: setup
	$(BIN)/python -m tests.soak --points $(POINTS) --seed $(SEED)
	AUNN_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest tests/test_state_machine.py

# Peers live in an environment of their own: one of them needs an older numpy.
bench: setup .venv-bench/installed
	$(BIN)/python -m benchmarks.table --work $(BENCH) $(BENCH_FLAGS)

.venv-bench/installed: benchmarks/constraints.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --constraint benchmarks/constraints.txt \
	  tensorstore litdata mosaicml-streaming webdataset torch==2.13.0 zarr numpy duckdb pyarrow tqdm
	touch $@

# Held-out parts of real data by us and by what people would use: DATA=folder, SECONDS of training for each network.
reconstruction: setup
	$(BIN)/python -m benchmarks.reconstruction --data $(DATA) --seconds $(SECONDS) $(BENCH_FLAGS)

# How fast training is beside a plain loop, and what share of the machine it takes; BENCH_FLAGS="--width 512 --seconds 5".
bench-engine: setup
	$(BIN)/python -m benchmarks.engine $(BENCH_FLAGS)

# Takes the versions now in .venv as the pinned ones.
lock: setup
	$(BIN)/pip freeze --exclude-editable | sed -e 's/+cpu$$//' > constraints.txt

clean:
	rm -rf .venv .venv-bench $(DEMO)
