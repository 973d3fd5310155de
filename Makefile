# Needs nothing but Python 3.11 or later with venv. `make PYTHON=python3.13 test` picks another one.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PORT   ?= 8080
# What `make soak` starts: one process, workers, nodes, or diskless (nodes without disks).
SHAPE  ?= one
# As many processes as there are cores. The tests of one file share its daemon and its store. In the order of names, the
# files that take seconds come last: by the number of their tests, which is the default, it would be those that take most.
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# Without compiled modules each process reads the sources anew, and the tests start hundreds of them.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help venv run quick test test-all slow check format lint types imports bench soak docs page clean

help:
	@echo "make run     serve http://127.0.0.1:$(PORT)/files/ from uploads/"
	@echo "make quick   ruff, mypy and every quick test that needs no other process: a minute and a half"
	@echo "make test    ruff, mypy and all tests but the slow ones: some minutes; what to run before a commit"
	@echo "make test-all  make test, then the slow tests: what CI checks"
	@echo "make check   ruff, mypy and the direction of imports: seconds"
	@echo "make venv    .venv with all that tests need"
	@echo "make format  let ruff lay out the code and mend what it can"
	@echo "make docs    write the tables of options and the picture of the rooms anew"
	@echo "make page    make the upload page's files from web/page anew; needs node and npm"
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

run: $(BIN)/.run
	$(BIN)/resumable serve --host 127.0.0.1 --port $(PORT) --upload-dir uploads

# Each of these is a part of the one after it; none of them runs a test twice.
# All of the directories left out work on processes; not to read them saves the time.
quick: lint types
	$(PYTEST) -m "not slow and not process" --ignore=tests/e2e --ignore=tests/soak

test: lint types
	$(PYTEST) -m "not slow"

test-all: test slow

slow: $(BIN)/.dev
	$(PYTEST) -m slow

check: lint types imports

lint: $(BIN)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(BIN)/.dev
	$(BIN)/mypy

imports: $(BIN)/.dev
	$(BIN)/python -m pytest -q tests/test_imports.py

format: $(BIN)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(BIN)/.run
	$(BIN)/python -m resumable.config README.md docs/configuration.md
	$(BIN)/python -m tests.rooms

# The files are committed: who installs the package needs no node.
page:
	cd web/page && npm ci --ignore-scripts
	node web/page/build.mjs resumable/http/page/assets

bench: $(BIN)/.dev
	$(BIN)/python -m bench

soak: $(BIN)/.dev
	$(BIN)/python -m tests.soak --shape $(SHAPE)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
