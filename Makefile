# make demo   set up, train a small model on the embedded text, widen it, prove it (offline once set up)
# make test   set up, run the whole suite
# make check  lint, formatting, types      make fix   mend what can be mended      make bench   the benchmarks
# make families   each growth of every family, measured on small stock models; some five minutes on one core
# make fuzz   thousands of spoiled inputs, each of which must end in one sentence
# make docs   the pages as a site in site/, no broken link
# make smoke PYTHON=python3.13   whether growkit works at all with another Python, in an environment of its own

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: demo test families fuzz smoke check fix docs bench clean

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt torch
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

demo: $(VENV)/.ready
	$(RUN) examples/demo.py

# where it is set, many processes would compile the same files again and again
test: $(VENV)/.ready
	PYTHONDONTWRITEBYTECODE= $(RUN) -m pytest --numprocesses auto --dist loadfile

# all growths of all families; the suite takes a sample of them that covers each fact and each word of the notation
families: $(VENV)/.ready
	$(RUN) -m growkit check-family --all

# inputs with something wrong in them, by the thousand: CASES=20000 SEED=7
CASES ?= 3000
SEED ?= 0

fuzz: $(VENV)/.ready
	$(RUN) tests/fuzz.py --cases $(CASES) --seed $(SEED)

# without constraints: versions that fit one Python need not fit another
smoke:
	$(PYTHON) -m venv --clear $(VENV)-smoke
	$(VENV)-smoke/bin/python -m pip install --quiet --editable .
	$(VENV)-smoke/bin/python tests/smoke.py

check: $(VENV)/.ready
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

fix: $(VENV)/.ready
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .
	$(RUN) docs/make_pages.py

docs: $(VENV)/.ready
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(RUN) -m mkdocs build --strict

# TEXT: a folder of text, the better the larger. DOCS: one of another kind, for merging; MERGEKIT: mergekit-yaml of an
# environment of its own; TRL: a Python that has TRL and growkit; GPU: on a machine with one, tokens for it (examples/
# benchmarks/gpu.py says how they are made), else that benchmark runs at sizes for a CPU. REAL: a file of text, for SmolLM2
# (examples/real_model.py). What needs these is left out where they are not given.
TEXT ?= examples/text
PEER = $(if $(MERGEKIT),--mergekit $(MERGEKIT))

bench: $(VENV)/.ready
	$(RUN) examples/benchmarks/exactness.py
	$(RUN) examples/benchmarks/minilm.py
	$(RUN) examples/benchmarks/step_zero.py --work bench
	$(RUN) examples/benchmarks/fuse.py --work bench
	$(RUN) examples/benchmarks/tokenizing.py --corpus $(TEXT)
	$(RUN) examples/benchmarks/pretrain.py
	$(RUN) examples/benchmarks/trainer_losses.py
	$(RUN) examples/benchmarks/gpu.py $(if $(GPU),--data $(GPU),--small) --out bench/gpu
	$(if $(TRL),$(TRL) examples/benchmarks/sft.py)
	$(RUN) examples/benchmarks/rewarm.py $(TEXT)
	$(RUN) examples/benchmarks/weak_teacher.py $(firstword $(wildcard $(TEXT)/*.txt $(TEXT)/*/*.txt)) --work bench/weak-teacher
	$(RUN) examples/benchmarks/router_clusters.py
	$(RUN) examples/benchmarks/regimes.py $(TEXT) $(if $(DOCS),--docs $(DOCS)) --work bench/regimes
	$(if $(DOCS),$(RUN) examples/benchmarks/skills.py $(TEXT) --docs $(DOCS) --work bench/skills)
	$(if $(DOCS),$(RUN) examples/benchmarks/merge.py --books $(TEXT) --docs $(DOCS) --work bench/merge)
	$(if $(DOCS),$(RUN) examples/benchmarks/inherit.py $(TEXT) --other $(DOCS) --work bench/inherit)
	$(if $(DOCS),$(RUN) examples/benchmarks/new_domain.py $(TEXT) $(DOCS) --work bench/new-domain)
	$(RUN) examples/benchmarks/applications.py
	$(RUN) examples/benchmarks/plan_30b.py --work bench
	$(RUN) examples/benchmarks/widen_1b.py --work bench
	$(RUN) examples/benchmarks/stack_1b.py --work bench $(PEER)
	$(RUN) examples/benchmarks/upcycle_1b.py --work bench
	$(if $(PEER),$(RUN) examples/benchmarks/mergekit_values.py $(PEER))
	$(if $(REAL),$(RUN) examples/benchmarks/smollm.py $(REAL) --work bench/smollm)
	$(if $(REAL),$(RUN) examples/benchmarks/smollm_skill.py $(REAL) --work bench/smollm)
	$(if $(REAL),$(if $(DOCS),$(RUN) examples/benchmarks/smollm_skills.py $(TEXT) --docs $(DOCS) --work bench/smollm-skills))
	$(RUN) examples/benchmarks/merge_1b.py --work bench $(PEER)

clean:
	rm -rf $(VENV) $(VENV)-smoke demo bench site .pytest_cache .mypy_cache .ruff_cache
