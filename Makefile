# One verb each; `make` alone lists them.  Needs Python 3.11 or newer, a C++20 compiler and make: the rest
# (cmake and ninja too) comes from the package index into .venv.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test check bench docs wheel test-arm clean

PYTHON ?= python3
PROMPT ?= Why is the sky blue?
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SOURCES := $(shell find native src -type f -not -path '*/__pycache__/*' 2>/dev/null)
ARM := build/aarch64

help: ## list the verbs
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(VENV)/installed ## build, bring the default model and let it answer (PROMPT="...")
	@# The likeliest words: what a model this small draws by chance is too often nonsense.
	$(BIN)/octavo run --temperature 0 "$(PROMPT)"

test: $(VENV)/installed $(VENV)/dev ## run all tests
	$(BIN)/python -m pytest

check: $(VENV)/installed $(VENV)/dev ## format, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed $(VENV)/bench ## measure octavo beside its peers, in one run (results: benchmarks/results)
	$(BIN)/python -m benchmarks

docs: $(VENV)/installed $(VENV)/dev ## check that the documents say what is true (links, commands, map of files)
	$(BIN)/python -m pytest -q tests/house/test_documents.py

wheel: $(VENV)/build-tools ## build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

test-arm: $(VENV)/build-tools ## cross-compile the native tests for aarch64 and run them under qemu
	@command -v aarch64-linux-gnu-g++ >/dev/null || \
	  { echo "missing: aarch64-linux-gnu-g++ (Debian: apt install g++-aarch64-linux-gnu)"; exit 1; }
	@command -v qemu-aarch64 >/dev/null || { echo "missing: qemu-aarch64 (Debian: apt install qemu-user)"; exit 1; }
	$(BIN)/cmake -S . -B $(ARM) -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja \
	  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
	  "-DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64;-L;/usr/aarch64-linux-gnu"
	$(BIN)/cmake --build $(ARM)
	$(BIN)/ctest --test-dir $(ARM) --output-on-failure --no-tests=error

clean: ## remove what make made: .venv, build, dist
	rm -rf $(VENV) build dist

# Stamps: what is in .venv is renewed only when the files to the right of a colon change.
$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "octavo needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "no venv could be made (Debian: apt install python3-venv)"; exit 1; }
	@touch $@

# The build's tools live in .venv rather than in a new environment for each build: then a second build
# compiles only what changed.
$(VENV)/build-tools: $(VENV)/created constraints.txt
	$(PIP) scikit-build-core nanobind cmake ninja
	@touch $@

$(VENV)/dependencies: $(VENV)/build-tools pyproject.toml
	$(call requirements,["dependencies"])
	@touch $@

$(VENV)/dev: $(VENV)/dependencies
	$(call requirements,["optional-dependencies"]["dev"])
	@touch $@

$(VENV)/bench: $(VENV)/dependencies
	$(call requirements,["optional-dependencies"]["bench"])
	@touch $@

$(VENV)/installed: $(VENV)/dependencies CMakeLists.txt $(SOURCES)
	$(PIP) --no-build-isolation --no-deps --force-reinstall .
	@touch $@

# Install a list of pyproject.toml without building octavo itself.
define requirements
@$(BIN)/python -c 'import tomllib; print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]$(1)))' > $@.txt
$(PIP) -r $@.txt
endef
