# make demo   set up, train a small model on the embedded text, widen it, prove it (offline once set up)
# make test   set up, run the whole suite
# make check  lint, formatting, types      make fix   mend what can be mended      make bench   the benchmarks

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: demo test check fix bench clean

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt torch
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

demo: $(VENV)/.ready
	$(RUN) examples/demo.py

test: $(VENV)/.ready
	$(RUN) -m pytest --numprocesses auto --dist loadfile

check: $(VENV)/.ready
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

fix: $(VENV)/.ready
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: $(VENV)/.ready
	$(RUN) examples/benchmarks/exactness.py
	$(RUN) examples/benchmarks/minilm.py
	$(RUN) examples/benchmarks/step_zero.py --work bench
	$(RUN) examples/benchmarks/fuse.py --work bench
	$(RUN) examples/benchmarks/widen_1b.py --work bench
	$(RUN) examples/benchmarks/stack_1b.py --work bench
	$(RUN) examples/benchmarks/upcycle_1b.py --work bench
	$(RUN) examples/benchmarks/pretrain.py
	$(RUN) examples/benchmarks/upcycle_1b.py --work bench

clean:
	rm -rf $(VENV) demo bench .pytest_cache .mypy_cache .ruff_cache
