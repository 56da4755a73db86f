# Commands for a fresh machine with Python 3.11 or newer, git and make.
#   make run    read the sample radiographs with the shipped weights
#   make check  lint, types and the fast tests: a minute and a half on two cores
#   make test   lint, types and the whole test suite
#   make reference   write docs/reference.md from the commands and settings
#   make vulnerabilities   known ones of what `make run` installs, when their list can be reached
PYTHON ?= python3
RUN := .venv
TEST := .venv-test

# One process per core, each with one thread.
PYTEST := OMP_NUM_THREADS=1 $(TEST)/bin/pytest --numprocesses=auto --dist=loadfile

.PHONY: run check lint test reference vulnerabilities clean

# Exit code 1 means that some input failed, and samples/ holds a truncated file on purpose.
run: $(RUN)/.installed
	$(RUN)/bin/fxpipe run --input samples/ --output results/ || test $$? -eq 1

lint: $(TEST)/.installed
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy

check: lint
	$(PYTEST) -m "not slow"

test: lint
	$(PYTEST) --durations=10

reference: $(TEST)/.installed
	PYTHONPATH=tests $(TEST)/bin/python tests/reference.py

vulnerabilities: $(RUN)/.installed $(TEST)/.installed
	$(TEST)/bin/pip-audit --progress-spinner off --path $(RUN)/lib/python3*/site-packages

$(RUN)/.installed: pyproject.toml
	$(PYTHON) -m venv $(RUN)
	$(RUN)/bin/pip install --quiet --editable .
	touch $@

$(TEST)/.installed: pyproject.toml
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/pip install --quiet --editable ".[train,dev]"
	touch $@

clean:
	rm -rf $(RUN) $(TEST) results build *.egg-info .coverage .coverage.*
