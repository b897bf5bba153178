# `make demo` and `make test` each work on a fresh machine with Python >= 3.11, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# How many processes share the tests out; each has one thread.
WORKERS ?= 2
PYTEST := $(BIN)/pytest -n $(WORKERS)
# Compiled modules are kept, also where the environment says otherwise: without them each process that
# imports PyTorch and Transformers compiles these anew, which takes twice the time of everything else.
export PYTHONDONTWRITEBYTECODE :=
# Seconds of tests that `make check` runs, about.
SHORT ?= 8

.PHONY: help install model demo check test lint types unit docs package changed-types changed-tests quantized deepspeed coverage budget \
	mutation fuzz lock sbom clean

help:
	@echo "make demo      install, then learn four small tasks with two methods and compare them"
	@echo "make check     lint, type check and quick tests of what changed since main (30 s)"
	@echo "make test      install, then lint, type check, run all tests and build the documentation"
	@echo "make docs      the documentation as a site (dist/site), strictly and without a network"
	@echo "make package   the wheel, installed into an empty environment, where the demo is run"
	@echo "make quantized the tests of quantised base models, which need bitsandbytes"
	@echo "make deepspeed the tests of penalties under DeepSpeed, which is built first"
	@echo "make coverage  all tests, and which branches none of them takes"
	@echo "make lock      what a user installs with its hashes, requirements.lock"
	@echo "make sbom      what is installed, as CycloneDX (dist/sbom.cdx.json)"
	@echo "make fuzz      the tests of hostile files, with 1,000 examples each (10 minutes)"
	@echo "make budget    all tests, and write down what each file takes (tests/durations.json)"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("nlora needs Python 3.11 or newer, this is " + sys.version.split()[0] + " (set PYTHON=...)" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# The real model of the tests, which are left out without it.
model: install
	$(BIN)/nlora models fetch smollm2-135m

demo: install
	$(BIN)/nlora demo

check: install
	@$(MAKE) --no-print-directory -j2 -O lint changed-types changed-tests

# What runs in one process takes a core each; the tests take all of them.
test: install
	@$(MAKE) --no-print-directory -j2 -O lint types docs
	@$(MAKE) --no-print-directory unit

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	$(BIN)/pyright --pythonpath $(BIN)/python

unit: install
	$(PYTEST)

docs: install
	$(BIN)/mkdocs build --strict --quiet

# What a user gets: nothing of the checkout is seen from the folder where the demo runs.
package: install
	rm -rf dist/wheel build
	$(BIN)/python -m build --quiet --outdir dist/wheel
	$(PYTHON) -m venv --clear dist/wheel/env
	PYTHONPATH= dist/wheel/env/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt dist/wheel/*.whl
	cd dist/wheel && PYTHONPATH= env/bin/nlora demo --out demo

changed-types: install
	@files=$$($(BIN)/python tools/changed.py modules) && \
	if [ -n "$$files" ]; then $(BIN)/pyright --pythonpath $(BIN)/python $$files; fi

changed-tests: install
	@files=$$($(BIN)/python tools/changed.py tests $(SHORT)) && \
	if [ -n "$$files" ]; then $(BIN)/pytest $$files; fi

# Apart from the other tests, since with bitsandbytes each import of PEFT takes two seconds more.
quantized: install
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --upgrade --disable-pip-version-check -c constraints.txt --target $(VENV)/quantized bitsandbytes
	PYTHONPATH=$(VENV)/quantized $(BIN)/pytest -n 0 tests/adapters/test_quantized.py

# Apart likewise: it is built from source, and compiles an operation for CPUs when it first runs, in minutes.
deepspeed: install
	DS_BUILD_OPS=0 DS_ACCELERATOR=cpu $(BIN)/python -m pip install --quiet --no-compile --no-deps --no-build-isolation --upgrade --disable-pip-version-check -c constraints.txt --target $(VENV)/deepspeed deepspeed einops hjson msgpack ninja py-cpuinfo
	DS_ACCELERATOR=cpu PATH="$(CURDIR)/$(VENV)/deepspeed/bin:$$PATH" PYTHONPATH=$(VENV)/deepspeed $(BIN)/pytest -n 0 --timeout 1800 tests/continual/test_deepspeed.py

coverage: install
	$(PYTEST) --cov --cov-report=term

budget: install
	NLORA_BUDGET=write $(PYTEST)

# Goes on where it was interrupted; with ROOM=store, all of that room anew (docs/mutation.md).
mutation: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,mutation]'
	OMP_NUM_THREADS=1 PYTHONPATH=src $(BIN)/python tools/mutation.py run --max-children 1 $(if $(ROOM),'nlora.$(ROOM).*')

# Other examples each time; one that fails is kept in .hypothesis, and tried first from then on.
fuzz: install
	HYPOTHESIS_PROFILE=nightly $(PYTEST) --timeout=7200 --hypothesis-show-statistics tests/fuzz

# Kept apart, so that what they need is not listed as nlora's.
$(VENV)/tools/.installed: Makefile
	$(PYTHON) -m venv $(VENV)/tools
	$(VENV)/tools/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 cyclonedx-bom==7.5.0
	@touch $@

# What a user installs, with the hashes of every file (docs/security.md); needs the network.
lock: $(VENV)/tools/.installed
	$(VENV)/tools/bin/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 --extra data --extra metrics --extra smollm2 -c constraints.txt --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" -o requirements.lock

sbom: install $(VENV)/tools/.installed
	@mkdir -p dist
	$(VENV)/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible --validate -o dist/sbom.cdx.json $(BIN)/python
	@echo "dist/sbom.cdx.json"

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis .coverage* mutants
