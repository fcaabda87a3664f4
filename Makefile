# Signalbox. `make up` runs the gateway with a demo API, `make test` passes the tests.
PYTHON ?= python3
TEST_PROCESSES ?= 3
VENV := .venv
PIP := PYTHONWARNINGS=ignore $(VENV)/bin/python -m pip --quiet --disable-pip-version-check

.PHONY: help install up down test lint docs bench clean

help: ## what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 16

install: $(VENV)/.installed ## fill .venv with everything, servers included

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; name one with make PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
	  echo "this Python has no venv module: installing it with apt"; \
	  root=$$(test "$$(id -u)" = 0 || echo sudo); \
	  $$root apt-get update -qq && \
	  $$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null && \
	  $(PYTHON) -m venv --clear $(VENV); }
	@$(PIP) install --upgrade "pip>=25.1"
	@$(PIP) install --editable . --group dev
	@touch $@

up: install ## the gateway, a sample backend and a sample API, until Ctrl-C
	@$(VENV)/bin/signalbox up --demo

down: ## stop a gateway that was started in the background
	@$(VENV)/bin/signalbox down

test: install ## every test, on real servers
	$(VENV)/bin/pytest --numprocesses=$(TEST_PROCESSES) --dist=loadfile

lint: install ## style, strict types, import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

docs: install ## write the pages that are generated from the code
	$(VENV)/bin/python -m compose.settings_page > docs/settings.md
	$(VENV)/bin/python -m policy_engine.documentation > docs/policies.md
	$(VENV)/bin/python -m ctl.reference > docs/cli.md

bench: install ## ratios measured in one run; needs wrk
	$(VENV)/bin/python -m tests.bench

clean: ## remove the environment and what was built
	rm -rf $(VENV) build dist *.egg-info
