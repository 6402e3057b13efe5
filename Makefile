# Two commands do everything: `make demo` and `make test`. They need Python 3.10+, make and git.

PYTHON ?= python3
DATA ?=
FORMAT ?= criteo
PIP_FLAGS ?=

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt

.PHONY: demo test check format docs clean
.DEFAULT_GOAL := demo

demo: .venv/.installed
	$(BIN)/lma demo $(if $(DATA),"$(DATA)" --format $(FORMAT))

test: .venv/.installed-test
	$(BIN)/python -m pytest

check: .venv/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_import_directions.py tests/test_public_names.py
	$(BIN)/mkdocs build --quiet --strict --site-dir build/site

format: .venv/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/.installed-dev
	$(BIN)/mkdocs serve

clean:
	rm -rf .venv build dist site

.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e .
	@touch $@

.venv/.installed-test: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e '.[test]'
	@touch $@ .venv/.installed

.venv/.installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e '.[dev]'
	@touch $@ .venv/.installed .venv/.installed-test

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; name one with: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "installing into .venv, which takes a minute or two"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
