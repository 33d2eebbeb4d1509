# Every target sets up what it needs in $(VENV); the second time that is quick.
#
#   make demo [INPUT=my.mp4]   derain a clip that the demo makes itself, or yours; needs neither torch nor a compiler
#   make test                  style, types, quick tests, the C++ build and its tests (under 20 minutes on 2 cores)
#   make test-full [PARTS=a]   the long tests (matrices, sanitizers, soaks, browsers), by folder of tests/; the last
#                              result of each is kept in docs/test-full. Some hours: one folder at a time, PARTS=native
#   make lint                  style and types only
#   make native                build libderain into build/native and run its tests
#   make bench [MINUTES=15]    measure this machine for docs/benchmarks/README.md; leave it alone meanwhile. What was
#                              interrupted is taken up; AGAIN=1 measures all anew; PRENET=DIR, a checkout of
#                              github.com/csdwren/PReNet, is timed beside; FRAMES=200 of each candidate
#   make clean                 remove $(VENV) and build products
#
# PYTHON       the interpreter to build $(VENV) with, 3.10 to 3.13
# TORCH_INDEX  where `make test` looks for torch: CPU builds unless you say otherwise (for CUDA 12.6:
#              https://download.pytorch.org/whl/cu126). Empty, or where it cannot be reached: pip's own index.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
INPUT ?=
FRAMES ?= 200
MINUTES ?= 15
AGAIN ?=
PRENET ?=
PARTS ?= calibration export native runtime train
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

BIN := $(VENV)/bin
SYSTEM_PACKAGES := cmake g++ pkg-config libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev \
  gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

define CHECK_PYTHON
import sys
version = "%d.%d" % sys.version_info[:2]
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    sys.exit("derain needs Python 3.10 to 3.13, and " + sys.executable + " is " + version
             + ". Name another one, for example: make PYTHON=python3.12")
try:
    import ensurepip, venv
except ImportError:
    sys.exit(sys.executable + " cannot make virtual environments. On Debian, Ubuntu and JetPack run:\n"
             "  sudo apt install python" + version + "-venv")
endef
export CHECK_PYTHON

# Name resolution obeys no timeout of urllib's, hence the alarm.
define PROBE_INDEX
import signal, sys, urllib.request
signal.alarm(5)
urllib.request.urlopen(sys.argv[1].rstrip("/") + "/torch/", timeout=3).close()
endef
export PROBE_INDEX

.PHONY: help demo test test-full lint native bench clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.demo
	@$(BIN)/derain demo $(if $(INPUT),--input "$(INPUT)")

test: lint native
	$(BIN)/python -m pytest

# One result for each folder, with what it is of: a run of hours is interrupted and taken up by PARTS. Failures are kept
# as well, and the others go on.
test-full: lint native
	@mkdir -p docs/test-full build; failed=(); for part in $(PARTS); do \
	  { echo "$$(git describe --always --dirty 2>/dev/null || echo no commit), $$(date -u +%F), $$($(BIN)/python -V), $$(nproc) CPUs:" \
	      "make test-full PARTS=$$part"; \
	    $(BIN)/python -u -m pytest --no-header -m full --timeout=7200 --durations=10 tests/$$part; \
	  } | sed -u "s|$(CURDIR)|.|g" | tee build/test-full-$$part.txt || failed+=("$$part"); \
	  mv build/test-full-$$part.txt docs/test-full/$$part.txt; \
	done; \
	(( $${#failed[@]} == 0 )) || { echo "failed: $${failed[*]}"; exit 1; }

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The C++ runtime. Where a compiler is missing its tests are left out, saying so; under CI that is an error.
native: $(VENV)/.dev $(VENV)/.system
	@if command -v cmake >/dev/null && command -v c++ >/dev/null; then \
	  cmake -S . -B build/native -DPython3_EXECUTABLE="$(CURDIR)/$(BIN)/python" -DDERAIN_WERROR=ON \
	    $(if $(CI),-DDERAIN_OPENVINO=ON -DDERAIN_GSTREAMER=ON) >build-native.log || { cat build-native.log; exit 1; }; \
	  rm build-native.log; \
	  cmake --build build/native -j2 && ctest --test-dir build/native --output-on-failure; \
	elif [[ "$${CI:-}" == true ]]; then echo "cmake or a C++ compiler is missing"; exit 1; \
	else echo "left out: the C++ runtime (cmake or a C++ compiler is missing)"; fi

# Results go to docs/benchmarks/results, and the page is written from them: commit both.
bench: $(VENV)/.dev
	$(BIN)/python docs/benchmarks/make_page.py --frames $(FRAMES) --minutes $(MINUTES) \
	  $(if $(AGAIN),--again) $(if $(PRENET),--prenet "$(PRENET)")

clean:
	rm -rf "$(VENV)" build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache derain-demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c "$$CHECK_PYTHON"
	@$(PYTHON) -m venv "$(VENV)"
	@touch $@

# Root on Debian or Ubuntu (a CI machine, a container) gets what is missing; anybody else is told.
$(VENV)/.system: $(VENV)/.created
	@missing=(); for package in $(SYSTEM_PACKAGES); do \
	  dpkg -s "$$package" >/dev/null 2>&1 || missing+=("$$package"); done; \
	if (( $${#missing[@]} == 0 )); then :; \
	elif (( EUID == 0 )) && command -v apt-get >/dev/null; then \
	  echo "Installing $${missing[*]} ..."; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null; \
	else echo "For the whole C++ runtime run: sudo apt install $${missing[*]}"; fi
	@touch $@

$(VENV)/.demo: $(VENV)/.created pyproject.toml constraints.txt
	@echo "Installing derain with ONNX Runtime for the CPU into $(VENV) ..."
	@$(PIP_INSTALL) --editable ".[cpu]"
	@touch $@

$(VENV)/.dev: $(VENV)/.created pyproject.toml constraints.txt
	@echo "Installing derain with all development packages into $(VENV); the first time takes some minutes ..."
	@index=(); \
	if [[ -n "$(TORCH_INDEX)" ]]; then \
	  if $(BIN)/python -c "$$PROBE_INDEX" "$(TORCH_INDEX)" 2>/dev/null; then \
	    index=(--extra-index-url "$(TORCH_INDEX)"); \
	  else \
	    echo "$(TORCH_INDEX) cannot be reached: torch comes from pip's own index, perhaps as the larger CUDA build"; \
	  fi; \
	fi; \
	$(PIP_INSTALL) "$${index[@]}" --editable ".[dev]"
	@touch $@
