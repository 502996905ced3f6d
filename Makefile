# Two commands for a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_WORKERS ?= 2

.PHONY: demo test check format golden docs screenshots clean

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo,test,check]'
	touch $@

demo: $(VENV)/.ready
	$(BIN)/twinrun demo

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) tests

check: $(VENV)/.ready
	$(BIN)/ruff check src tests benchmarks docs/generate.py docs/screenshots.py
	$(BIN)/ruff format --check src tests benchmarks docs/generate.py docs/screenshots.py
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.ready
	$(BIN)/ruff format src tests benchmarks docs/generate.py docs/screenshots.py
	$(BIN)/ruff check --fix src tests benchmarks docs/generate.py docs/screenshots.py

# Accept a change of what the reports print.
golden: $(VENV)/.ready
	ACCEPT_GOLDEN=1 $(BIN)/python -m pytest tests/pure -k golden

# Write the pages that are generated from the code; tests check that they are up to date.
docs: $(VENV)/.ready
	$(BIN)/python docs/generate.py

# The pictures of docs/report.md, from the captures that the demo made; needs Chromium on PATH.
screenshots: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet -e '.[browser]'
	test -d runs/demo/tp2-fault || $(BIN)/twinrun demo
	$(BIN)/python docs/screenshots.py runs/demo/tp1 runs/demo/tp2-fault

clean:
	rm -rf $(VENV) runs build dist
