# The README's two commands: each makes the environment that it needs, only from this project's files.
PYTHON ?= python3
NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11) and "needs Python 3.11: rm -rf venv; make PYTHON=python3.12")

.PHONY: install quickstart test test-all check lock

install: venv/installed

quickstart: venv/installed
	venv/bin/python -m vgg_jax.main --config configs/quickstart.py

test: venv/installed
	venv/bin/python -m pytest

# In full, the tests that `make test` shortens: all recipes trained, our convolution, 40 interruptions, 300 bad inputs, lessons.
FULL = configs generated lessons resume sharding train
# And some as users compile them: with XLA's optimisation, which costs most of a test's time.
SHIPPED = layers optim train

test-all: venv/installed
	VGG_JAX_ALL=1 venv/bin/python -m pytest $(FULL:%=tests/test_%.py)
	VGG_JAX_SHIPPED=1 venv/bin/python -m pytest $(SHIPPED:%=tests/test_%.py)

# The checks that a change must pass besides the tests.
check: venv/installed
	venv/bin/ruff check .
	venv/bin/ruff format --check .
	venv/bin/pyright --pythonpath venv/bin/python

# Updates requirements.lock, the tested versions for every supported Python; `pip install .` takes any version in range.
lock: venv/installed
	venv/bin/python -m pip install -q uv
	venv/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --extra dev setup.cfg -o requirements.lock

venv/installed: setup.cfg pyproject.toml requirements.lock
	@$(PYTHON) -c '$(NEW_ENOUGH)'
	$(PYTHON) -m venv venv
	@venv/bin/python -c '$(NEW_ENOUGH)'
	venv/bin/python -m pip install -q --upgrade pip
	venv/bin/python -m pip install -q -r requirements.lock
	venv/bin/python -m pip install -q --no-deps -e .
	touch venv/installed
