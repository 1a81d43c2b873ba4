# Two commands for a new user: `make demo` and `make test`. Both set up .venv themselves and are quick the second time.

PYTHON ?= python3
ARGS ?=
JOBS ?= 3
VENV := .venv
BIN := $(VENV)/bin

# What the installed package is built from: a change in any of these installs it again. (Python files need no new install: it is editable.)
BUILT_FROM := pyproject.toml setup.py constraints.txt $(wildcard kernels/*.pyx kernels/*.pxd kernels/*.cuh kernels/*.hpp)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# pip builds the package in an environment of its own; the variables pin that environment too (the second name is for pip 25.3 and later).
# A relative path, because pip splits these at spaces; and only here, because a pip that the tests start elsewhere would not find it.
PINNED := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
INSTALL := $(PINNED) $(BIN)/python -m pip install --constraint constraints.txt --editable

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint types clean

help:
	@echo 'make demo    install what the demo needs, run it; ARGS="--fast" for the short way, ARGS="--help" for all options'
	@echo 'make test    install what the suite needs, run the checks and every test, in JOBS=3 processes; ARGS="..." for pytest'
	@echo 'make lint    only the checks: ruff, mypy, cython-lint'
	@echo 'make clean   remove what was built: .venv, build/, compiled kernels, caches'
	@echo 'PYTHON=...   the Python (3.11 or newer) that .venv is made from; now: $(PYTHON)'

demo: $(VENV)/.ready-for-demo
	@echo '== demo: fastencode-tune demo $(ARGS)'
	@$(BIN)/fastencode-tune demo $(ARGS)

test: export FASTENCODE_REQUIRE_EXT := 1
test: lint
	@echo '== tests: the whole suite'
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal $(ARGS)
	@echo '== all checks and tests passed'

lint: $(VENV)/.ready-for-tests types
	@echo '== lint: ruff'
	@$(BIN)/ruff check .
	@echo '== lint: cython-lint'
	@set -- kernels/*.pyx; if [ -e "$$1" ]; then PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint "$$@"; fi

# kernels/ is the package fastencode.kernels but lies beside src/, and mypy follows no import hooks: show it the installed layout.
types: $(VENV)/.ready-for-tests
	@echo '== lint: mypy'
	@rm -rf build/types && mkdir -p build/types/fastencode
	@ln -s "$(CURDIR)"/src/fastencode/* "$(CURDIR)/kernels" build/types/fastencode/
	@$(BIN)/mypy

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "fastencode needs Python 3.11 or newer, and '$(PYTHON)' is" \
	        "$$($(PYTHON) --version 2>&1 || true). Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo '== set-up: a virtual environment in $(VENV), from $(PYTHON)'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.ready-for-demo: $(VENV)/.created $(BUILT_FROM)
	@echo '== set-up: compiling and installing fastencode with what the demo needs (a few minutes the first time)'
	@$(INSTALL) '.[demo]'
	@touch $@

$(VENV)/.ready-for-tests: $(VENV)/.created $(BUILT_FROM)
	@echo '== set-up: compiling and installing fastencode with what the tests need (a few minutes the first time)'
	@FASTENCODE_REQUIRE_EXT=1 $(INSTALL) '.[test]'
	@touch $(VENV)/.ready-for-demo $@

clean:
	@echo '== clean: removing .venv, build/, compiled kernels and caches'
	@rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@rm -f kernels/*.so
	@find kernels src tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
