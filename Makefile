# Everything a fresh machine with Python 3.11+ and make needs: `make demo`, `make test`.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

DEVICE ?= cuda
OUT ?= gpu-results

MODULES := src:tests/fuzz:tests/importer

# What the demo names as next: the same in colour, where the images are there
FOLDERS := $(if $(wildcard data/cifar10/train), --set data.source.kind=folder --set data.source.path=data/cifar10)
COLOUR := $(if $(FOLDERS)$(wildcard data/cifar-10-binary.tar.gz),train cifar10_quick_joint$(FOLDERS))
NEXT := $(if $(COLOUR),in colour and a few minutes: $(BIN)/gmmc $(COLOUR),how good it is: $(BIN)/gmmc eval all)

.PHONY: demo test test-slow test-realdata fuzz faults bench gpu gpu-train check format docs clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gmmc needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)  ## Train on handwritten digits, then draw generated ones beside real ones
	$(BIN)/gmmc train recipes/digits_gen.toml
	$(BIN)/gmmc sample --class all --per-class 8 --with-real
	@echo 'Look at that picture: a row for each digit, real images at the left, at the right what the network has drawn.'
	@echo 'Next, $(NEXT)'

test: $(READY)  ## The test suite, in two processes: under four minutes on two cores
	$(BIN)/python -m pytest --numprocesses 2

test-slow: $(READY)  ## Tests that take minutes: ten kills in a row, ...
	$(BIN)/python -m pytest -m slow

test-realdata: $(READY)  ## Tests on real images in ../shared/data; skipped where there are none
	$(BIN)/python -m pytest -m realdata

fuzz: $(READY)  ## Ten thousand damaged and hostile inputs, ten minutes on two cores; ONLY=npz or npz:17 for a kind or an input, PAGE=file for the table
	PYTHONPATH=$(MODULES) $(BIN)/python tests/fuzz/fuzz.py $(ONLY:%=--only %) $(PAGE:%=--page %)

faults: $(READY)  ## Kill trainings at every write, fill the disk, damage every file: twenty minutes on two cores; EVERY=10 for a tenth
	PYTHONPATH=src:tests:tests/train:tests/faults $(BIN)/python tests/faults/faults.py $(EVERY:%=--every %) $(PAGE:%=--page %)

bench: $(READY)  ## Measure speed and memory into benchmarks/results/: three minutes on two idle cores; ONLY=step for one part
	$(BIN)/python benchmarks/bench.py $(ONLY:%=--only %)

gpu: $(READY)  ## All that needs a GPU, in nine minutes, without network: tests marked cuda, step times; into OUT=gpu-results
	$(BIN)/python benchmarks/gpu.py all --device $(DEVICE) --out $(OUT)

gpu-train: $(READY)  ## Train cifar10_joint_fast for nine minutes, again to resume; DATA=folder:PATH for images of your own
	$(BIN)/python benchmarks/gpu.py train --device $(DEVICE) --out $(OUT) $(DATA:%=--data %)

check: $(READY)  ## Lint, types and import layers
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(READY)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: $(READY)  ## Write the command and recipe references anew from help texts and docstrings, and build the site into site/
	$(BIN)/python docs/cli.py
	$(BIN)/python docs/recipes.py
	$(BIN)/python -m mkdocs build --quiet

clean:
	rm -rf .venv dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
