# Two commands for a newcomer: `make reproduce` and `make test`. Every target makes .venv if it is missing.

PYTHON ?= python3
STUDY ?= ladder
PROFILE ?= embedded
SEEDS ?= 3
VENV = .venv/installed

.PHONY: reproduce install test lint docs

reproduce: $(VENV)
	.venv/bin/spinenet reproduce $(STUDY) --profile $(PROFILE) --seeds $(SEEDS)

install: $(VENV)

test: $(VENV)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python -m pytest -m "not accuracy and not chaos and not fuzz and not inductor and not all_studies"
	.venv/bin/python -m pytest -m all_studies

lint: $(VENV)
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .
	.venv/bin/mypy

docs: $(VENV)
	.venv/bin/mkdocs build --strict

$(VENV): requirements.txt pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed: make PYTHON=python3.11')"
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@
