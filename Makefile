# Signalbox. `make up` runs the gateway with a demo API, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv

.PHONY: install up test lint bench clean

install: $(VENV)/.installed ## fill .venv with everything, servers included

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { \
	  echo "this Python has no venv module: installing it with apt"; \
	  apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null && $(PYTHON) -m venv $(VENV); }
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

up: install ## the gateway, a sample backend and a sample API
	$(VENV)/bin/signalbox up --demo

test: install ## every test, on real servers
	$(VENV)/bin/pytest

lint: install ## style, strict types, import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: install ## ratios measured in one run
	$(VENV)/bin/python -m tests.bench

clean:
	rm -rf $(VENV) build dist *.egg-info
