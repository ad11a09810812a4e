# Needs GNU make and Python 3.11 or newer, nothing else.
#
#   make run                               write a few texts in every mode
#   make run PROMPT="..." MODE=diffusion   your text, one mode
#   make test                              the tests, a process per processor (at most 4; WORKERS=0: in one)
#   make test ARGS="-k spans"              some of them
#   make test-all                          the slow ones too, and those that need lm-evaluation-harness
#   make dev, make check                   what a contributor needs; what must pass before a commit
#   make clean                             remove all that make has made, .venv included
#
# constraints.txt names the versions that are tested. To choose your own build of torch, on a clean tree:
#   make run TORCH="torch==2.11.0 --index-url ..."   this torch, the other versions as tested
#   make run CONSTRAINTS=                            whatever pip finds
# The choice is kept in .venv/constraints.txt until `make clean`.

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
TORCH ?=
MODE ?=
ARGS ?=
WORKERS ?= auto

# A prompt is data: it reaches the program through the environment, and neither make nor the shell expands it.
export TRIMODE_PROMPT := $(value PROMPT)
export TRIMODE_MODE := $(value MODE)
unexport PROMPT MODE

VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
INSTALL := $(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := run
.DELETE_ON_ERROR:
.PHONY: run test test-all dev check clean

run: $(VENV)/.installed-base
	@$(VENV_PYTHON) -m trimode demo \
	  $${TRIMODE_PROMPT:+"--prompt=$$TRIMODE_PROMPT"} $${TRIMODE_MODE:+"--mode=$$TRIMODE_MODE"}

test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile $(ARGS)

test-all: $(VENV)/.installed-harness
	$(VENV_PYTHON) -m pytest -m "" --timeout=3600 $(ARGS)

dev: $(VENV)/.installed-dev

check:
	scripts/check

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find trimode tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/constraints.txt: $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "trimode needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
ifeq ($(strip $(TORCH)),)
	@cat $(CONSTRAINTS) /dev/null > $@
else
	@echo "Installing $(TORCH)"
	@$(INSTALL) $(TORCH)
	@cat $(CONSTRAINTS) /dev/null | sed '/^torch==/d' > $@
	@$(VENV_PYTHON) -c 'from importlib.metadata import version; print("torch==" + version("torch"))' >> $@
endif

$(VENV)/.installed-base: $(VENV)/constraints.txt pyproject.toml
	@echo "Installing trimode into $(VENV) (a minute or two, most of it torch)"
	@$(INSTALL) -c $(VENV)/constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed-base
	@echo "Installing what the tests need"
	@$(INSTALL) -c $(VENV)/constraints.txt -e '.[test,train,server]'
	@touch $@

$(VENV)/.installed-harness: $(VENV)/.installed-test
	@echo "Installing lm-evaluation-harness"
	@$(INSTALL) -c $(VENV)/constraints.txt -e '.[test,train,server,harness]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-base
	@echo "Installing what a contributor needs"
	@$(INSTALL) -c $(VENV)/constraints.txt -e '.[test,train,server,dev]'
	@touch $@ $(VENV)/.installed-test
