# Needs nothing but Python 3.11 or later with venv. `make PYTHON=python3.13 test` picks another one.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PORT   ?= 8080

.DEFAULT_GOAL := help
.PHONY: help venv run test check format lint types imports unit bench soak docs clean

help:
	@echo "make run     serve http://127.0.0.1:$(PORT)/files/ from uploads/"
	@echo "make test    ruff, mypy, import direction, pytest: everything that CI checks"
	@echo "make venv    .venv with all that tests need"
	@echo "make check   the same without pytest: seconds"
	@echo "make format  let ruff lay out the code and mend what it can"
	@echo "make docs    write the tables of options in README.md and docs/ anew"
	@echo "make bench   measure speed and memory; minutes"
	@echo "make soak    ten minutes of mixed clients, a store that flaps, hooks that fail, restarts"
	@echo "make clean   remove .venv and caches (never uploads/)"

$(BIN)/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "resumable needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	touch $@

# Two stamps, so that who only wants to run it does not wait for the tools.
$(BIN)/.run: $(BIN)/.made setup.py pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(BIN)/.dev: $(BIN)/.made setup.py pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(BIN)/.run

venv: $(BIN)/.dev

# --pidfile= : a file left by a killed process could keep the next one from starting.
run: $(BIN)/.run
	$(BIN)/twistd -n --pidfile= resumable --port $(PORT) --upload-dir uploads

test: check unit

check: lint types imports

lint: $(BIN)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(BIN)/.dev
	$(BIN)/mypy

imports: $(BIN)/.dev
	$(BIN)/python -m pytest -q tests/test_imports.py

# Most end-to-end tests wait most of the time, so two files at once take little more than half of it.
unit: $(BIN)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

format: $(BIN)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(BIN)/.run
	$(BIN)/python -m resumable.option_table README.md docs/configuration.md

bench: $(BIN)/.dev
	$(BIN)/python -m bench

soak: $(BIN)/.dev
	$(BIN)/python -m tests.soak

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
