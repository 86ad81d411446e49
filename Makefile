# make demo   a search on two virtual boards, then the Pareto tables (set-up included)
# make test   the whole test suite (set-up included)
# make check  style, types and the fast tests
# make golden writes tests/golden anew: the C that three small models give
#
# Elsewhere than on a machine whose pip already gives a CPU build of torch:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON      ?= python3
TORCH_INDEX ?=
VENV        := .venv
BIN         := $(VENV)/bin
READY       := $(VENV)/.ready
DEBIAN      := gcc-arm-none-eabi libnewlib-arm-none-eabi python3-venv
JOBS        ?= 2

.PHONY: demo test check lint format golden setup clean

demo: $(READY)
	$(BIN)/hil demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

check: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow and not hardware"

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

golden: $(READY)
	$(BIN)/python tests/golden/regenerate.py

setup: $(READY)

# The Arm toolchain from Debian, the Python packages into .venv. Without root: the one command to run.
$(READY): pyproject.toml
	@if ! { $(PYTHON) -c 'import ensurepip, venv' \
	        && command -v arm-none-eabi-gcc \
	        && test -f "$$(arm-none-eabi-gcc -print-file-name=libc.a)"; } >/dev/null 2>&1; then \
	    if [ "$$(id -u)" = 0 ]; then \
	        apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	            apt-get install -y -qq --no-install-recommends $(DEBIAN) >/dev/null; \
	    else \
	        echo "these Debian packages are needed; install them and run make again:" >&2; \
	        echo "  sudo apt-get install $(DEBIAN)" >&2; exit 1; \
	    fi; \
	fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e '.[dev]'
	$(BIN)/python -m hil.platformio_core
	@touch $@

clean:
	rm -rf build $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
