# The README's two commands: each makes the environment it needs, from this project's files alone.
PYTHON ?= python3

.PHONY: quickstart test check

quickstart: venv/installed
	venv/bin/python -m vgg_jax.main --config configs/quickstart.py

test: venv/installed
	venv/bin/python -m pytest

# What a change must pass besides the tests.
check: venv/installed
	venv/bin/ruff check .
	venv/bin/ruff format --check .
	venv/bin/pyright --pythonpath venv/bin/python

venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv venv
	venv/bin/python -m pip install -q --upgrade pip
	venv/bin/python -m pip install -q -e '.[dev]'
	touch venv/installed
