"""The library of CUDA kernels loads where there is no GPU, and brings a kernel for every operator but one."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sa_layers.ops import extension, patchwise_attention
from sa_layers.ops.pairwise_attention import (
    CUDA_VALUE_CHANNELS,
    CUDA_WIDEST_LAYER,
    MAPPING_LAYERS,
    POSITION_CHANNELS,
)

pytestmark = pytest.mark.skipif(extension.why_not_cuda() is not None, reason=str(extension.why_not_cuda()))


# For evaluation; on a GPU torch's own matrix product computes it.
CPU_ONLY = {"projection"}


def operators(repository: Path) -> list[str]:
    names = re.findall(r'library\.def\(\s*"(\w+)\(', (repository / "csrc" / "library.cpp").read_text())
    assert "aggregation" in names
    return [name for name in names if name != "cpu_capability"]


def test_every_operator_but_one_has_a_kernel(repository: Path) -> None:
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    assert {name for name in operators(repository) if not has_kernel(f"sa_layers::{name}", "CUDA")} == CPU_ONLY


def test_the_limits_of_pairwise_attention_are_those_of_its_kernel(repository: Path) -> None:
    header = (repository / "csrc" / "cuda" / "pairwise_attention.h").read_text()
    limits = dict(re.findall(r"constexpr int (k\w+) = (\d+);", header))
    assert int(limits["kMappingLayers"]) == MAPPING_LAYERS
    assert int(limits["kPositionWidth"]) == POSITION_CHANNELS
    assert int(limits["kWidestLayer"]) == CUDA_WIDEST_LAYER
    assert int(limits["kMostValueChannels"]) == CUDA_VALUE_CHANNELS


def test_the_limits_of_patchwise_attention_are_those_of_its_kernel(repository: Path) -> None:
    header = (repository / "csrc" / "cuda" / "patchwise_attention.h").read_text()
    limits = dict(re.findall(r"constexpr int (k\w+) = (\d+);", header))
    module = sys.modules[patchwise_attention.__module__]  # of the name of its function
    assert int(limits["kPatchwiseWeights"]) == module.CUDA_WEIGHTS
    assert int(limits["kPatchwiseValues"]) == module.CUDA_VALUE_CHANNELS
    assert int(limits["kPatchwiseTaps"]) == module.CUDA_TAPS


@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm is here")
def test_it_calls_nothing_outside_the_stable_interface() -> None:
    library = Path(extension.__file__).parents[1] / "kernels_cuda.so"
    called = subprocess.run(
        ["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True
    ).stdout
    assert "aoti_torch_get_current_cuda_stream" in called
    assert not re.search(r"_ZNK?(2at|3c10)\d", called)  # C++ of libtorch, which changes from release to release
