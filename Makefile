# make demo       train a SAN10 segmenter with mmseg's tools, test it, draw its predictions
# make check      for daily work, in minutes: lint, and the tests that start no process and need no OpenMMLab
# make test       the whole test suite; PYTEST_OPTIONS=--exhaustive runs every case of sampled tests
# make lint       ruff, mypy, clang-format; every header compiles by itself
# make evidence   train networks on Imagenette and write docs/evidence.md: two hours; see that page for DATA, DEVICE, MINUTES
# make docs       build the documentation into docs/_build; warnings are errors
# make gpu-check  build, test, sanitize and measure on a GPU with the torch of $(PYTHON); installs nothing
# All but the last set up what they need in .venv first. After an interruption they continue where they stopped.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
DONE := $(VENV)/.done
COMPILED := .pytest_cache/d/compiled
CSRC := $(shell find csrc -type f)
# The newest torch that onedl-mmcv's operators compile against, and the torchvision that goes with it.
TORCH := torch==2.11.0 torchvision==0.26.0
# Without a GPU there is nothing that CUDA kernels could run on.
export SA_LAYERS_CUDA ?= $(if $(shell command -v nvidia-smi),auto,off)
# Each worker runs half of the tests, slow ones first (tests/conftest.py); one that is done takes over tests of the other.
PYTEST := $(BIN)/python -m pytest --numprocesses=auto --dist=worksteal
PYTEST_OPTIONS ?=
.DELETE_ON_ERROR:
.PHONY: demo check test lint docs evidence gpu-check format clean

demo: $(DONE)/segmentation
	$(BIN)/python tools/demo.py

test: $(DONE)/test $(DONE)/mmcv-operators $(DONE)/custom-operators
	SA_LAYERS_REQUIRE_ALL=1 $(PYTEST) $(PYTEST_OPTIONS)

check: lint
	$(PYTEST) -m "not process and not slow and not openmmlab" $(PYTEST_OPTIONS)

lint: $(DONE)/lint $(DONE)/headers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@echo $(BIN)/clang-format --dry-run --Werror csrc
	@$(BIN)/clang-format --dry-run --Werror $(filter %.cpp %.h %.cu %.cuh,$(CSRC))

# Not again before something in csrc/ changes.
$(DONE)/headers: $(DONE)/lint tools/check_headers.py $(CSRC)
	$(BIN)/python tools/check_headers.py
	@touch $@

docs: $(DONE)/test
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs docs/_build
	@echo "docs: open docs/_build/index.html"

# What is in the ledger is not run again. On a GPU with the ablations.
DATA ?= data
DEVICE ?= cpu
evidence: $(DONE)/test
	$(BIN)/python -m experiments run --data $(DATA) --device $(DEVICE) $(if $(MINUTES),--minutes $(MINUTES)) \
	    $(if $(filter cuda%,$(DEVICE)),--ablations)
	$(BIN)/python -m experiments page

gpu-check:
	@$(PYTHON) tools/gpu_check.py

format: $(DONE)/lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(filter %.cpp %.h %.cu %.cuh,$(CSRC))

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info work_dirs sa_layers/.mim sa_layers/build_info.json sa_layers/*.so

$(DONE)/torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "sa-layers needs Python 3.10 or newer; choose one with make PYTHON=python3.11"; exit 1; }
	@echo "setting up $(VENV): torch (several gigabytes)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH) "setuptools>=77,<82" wheel ninja
	@mkdir -p $(DONE) && touch $@

# In pip's isolated build mmcv does not find torch and leaves its operators out: that takes seconds and is enough for mmseg.
# The compiled objects of our kernels are kept for the tests of the installation.
$(DONE)/segmentation: $(DONE)/torch setup.py pyproject.toml $(CSRC)
	@echo "setting up $(VENV): OpenMMLab for segmentation; compiling the native kernels"
	$(BIN)/python tools/requirements.py segmentation datasets > $(DONE)/requirements.txt
	$(PIP) --requirement $(DONE)/requirements.txt
	CXX="$$($(BIN)/python tools/caching_compiler.py $(COMPILED) $(COMPILED)/../c++)" \
	    $(PIP) --no-build-isolation --no-deps --editable .
	@touch $@

$(DONE)/test: $(DONE)/segmentation
	@echo "setting up $(VENV): the packages that the tests need"
	$(BIN)/python tools/requirements.py segmentation classification detection test > $(DONE)/requirements.txt
	$(PIP) --requirement $(DONE)/requirements.txt
	@touch $@

# mmdet needs mmcv's operators.
$(DONE)/mmcv-operators: $(DONE)/test
	@$(BIN)/python -c 'import torch, mmcv._ext' 2>/dev/null || { \
	    echo "setting up $(VENV): compiling mmcv's operators for mmdet (about 4 minutes on 2 cores)"; \
	    $(BIN)/python tools/build_mmcv.py; }
	@touch $@

# amd-quark ships the C header of onnxruntime, whose own package does not. Its requirements are not needed.
$(DONE)/custom-operators: $(DONE)/test $(CSRC)
	@echo "setting up $(VENV): compiling the custom operators of onnxruntime and OpenVINO"
	$(PIP) --no-deps "amd-quark==0.13; python_version >= '3.11'"
	CXX="$$($(BIN)/python tools/caching_compiler.py $(COMPILED) $(COMPILED)/../c++)" $(BIN)/python tools/build_custom_operators.py
	@touch $@

$(DONE)/lint: $(DONE)/test
	$(BIN)/python tools/requirements.py lint > $(DONE)/requirements.txt
	$(PIP) --requirement $(DONE)/requirements.txt
	@touch $@
