# The README's two commands: each makes the environment it needs, from this project's files alone.
PYTHON ?= python3

.PHONY: quickstart test test-all check lock

quickstart: venv/installed
	venv/bin/python -m vgg_jax.main --config configs/quickstart.py

test: venv/installed
	venv/bin/python -m pytest

# The tests that are smaller there, whole: every recipe trained, our own convolution, 40 interruptions, 300 bad inputs.
WHOLE = configs generated resume sharding train

test-all: venv/installed
	VGG_JAX_ALL=1 venv/bin/python -m pytest $(WHOLE:%=tests/test_%.py)

# What a change must pass besides the tests.
check: venv/installed
	venv/bin/ruff check .
	venv/bin/ruff format --check .
	venv/bin/pyright --pythonpath venv/bin/python

# The versions that were tested, for every supported Python; `make lock` renews them, `pip install .` takes any in range.
lock: venv/installed
	venv/bin/python -m pip install -q uv
	venv/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --extra dev setup.cfg -o requirements.lock

venv/installed: setup.cfg pyproject.toml requirements.lock
	$(PYTHON) -m venv venv
	venv/bin/python -m pip install -q --upgrade pip
	venv/bin/python -m pip install -q -r requirements.lock
	venv/bin/python -m pip install -q --no-deps -e .
	touch venv/installed
