# make demo   train a SAN10 segmenter with mmseg's tools, evaluate it, draw what it sees
# make test   install everything, run the test suite
# make lint   ruff, mypy, clang-format; every header compiles by itself
# make docs   build the documentation into docs/_build, every warning an error
# make gpu-check   with a GPU, and the torch of $(PYTHON): build, test, sanitize, measure; installs nothing
# Every other target sets up what it needs in .venv; an interrupted one goes on where it stopped.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
DONE := $(VENV)/.done
CSRC := $(shell find csrc -type f)
# The newest torch that onedl-mmcv's operators compile against, and the torchvision that goes with it.
TORCH := torch==2.11.0 torchvision==0.26.0
# Without a GPU there is nothing that CUDA kernels could run on.
export SA_LAYERS_CUDA ?= $(if $(shell command -v nvidia-smi),auto,off)
# Files of tests spread over the cores, each test on one, in the order of tests/conftest.py: slow ones first.
PYTEST_OPTIONS ?= --numprocesses=auto --dist=loadfile --no-loadscope-reorder
.DELETE_ON_ERROR:
.PHONY: demo test lint docs gpu-check format clean

demo: $(DONE)/segmentation
	$(BIN)/python tools/demo.py

test: $(DONE)/test $(DONE)/mmcv-operators
	SA_LAYERS_REQUIRE_ALL=1 $(BIN)/python -m pytest $(PYTEST_OPTIONS)

lint: $(DONE)/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(filter %.cpp %.h %.cu %.cuh,$(CSRC))
	$(BIN)/python tools/check_headers.py

docs: $(DONE)/test
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs docs/_build
	@echo "docs: open docs/_build/index.html"

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
	    { echo "make needs Python 3.10 or newer; choose one with make PYTHON=python3.11"; exit 1; }
	@echo "setting up $(VENV): torch (several gigabytes)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH) "setuptools>=77,<82" wheel ninja
	@mkdir -p $(DONE) && touch $@

# In its isolated build mmcv does not see torch and leaves its operators out: seconds instead of 14 minutes, and enough
# for mmseg.
$(DONE)/segmentation: $(DONE)/torch setup.py pyproject.toml $(CSRC)
	@echo "setting up $(VENV): OpenMMLab for segmentation, the native kernels"
	$(BIN)/python tools/requirements.py segmentation datasets > $(DONE)/requirements.txt
	$(PIP) --requirement $(DONE)/requirements.txt
	$(PIP) --no-build-isolation --no-deps --editable .
	@touch $@

$(DONE)/test: $(DONE)/segmentation
	@echo "setting up $(VENV): what the tests need"
	$(BIN)/python tools/requirements.py segmentation classification detection test > $(DONE)/requirements.txt
	$(PIP) --requirement $(DONE)/requirements.txt
	@touch $@

# mmdet needs mmcv's operators. pip would take its cached wheel without them, hence --no-cache-dir.
$(DONE)/mmcv-operators: $(DONE)/test
	@$(BIN)/python -c 'import torch, mmcv._ext' 2>/dev/null || { \
	    echo "setting up $(VENV): compiling mmcv's operators for mmdet (about 14 minutes on 2 cores)"; \
	    $(PIP) --no-build-isolation --no-cache-dir --force-reinstall --no-deps \
	        onedl-mmcv==$$($(BIN)/python -c 'import mmcv; print(mmcv.__version__)') && \
	    $(BIN)/python -c 'import torch, mmcv._ext'; }
	@touch $@

$(DONE)/lint: $(DONE)/test
	$(BIN)/python tools/requirements.py lint > $(DONE)/requirements.txt
	$(PIP) --requirement $(DONE)/requirements.txt
	@touch $@
