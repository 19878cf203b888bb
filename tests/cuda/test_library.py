"""The library of CUDA kernels loads where there is no GPU, and brings a kernel for every operator but some."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from sa_layers.ops import Footprint, extension
from sa_layers.ops.pairwise_attention import why_no_kernel as why_no_pairwise_kernel
from sa_layers.ops.pairwise_operands import MAPPING_LAYERS, POSITION_CHANNELS
from sa_layers.ops.patchwise_attention import why_no_kernel as why_no_patchwise_kernel

pytestmark = pytest.mark.skipif(extension.why_not_cuda() is not None, reason=str(extension.why_not_cuda()))


CPU_ONLY = {
    "projection",  # for evaluation; on a GPU torch's own matrix product computes it
    # The passes of fused training; on a GPU the unfused operators train.
    "channel_statistics",
    "image_moments",
    "linear_backward_input",
    "linear_backward_weight",
    "linear_forward",
    "mask_and_sum",
    "max_pooling_backward",
    "max_pooling_sums",
    "norm_backward",
    "norm_gradient",
    "norm_scale_and_shift",
    "norm_track",
    "pairwise_training_backward",
    "pairwise_training_correction",
    "pairwise_training_forward",
    "pairwise_training_moments",
    "pairwise_training_norm_backward",
    "pairwise_training_statistics",
    "patchwise_hidden",
    "patchwise_hidden_backward",
    "patchwise_row_sums",
    "patchwise_subtract_norm",
    "patchwise_weighted_sum",
    "patchwise_weighted_sum_backward",
    "stem_backward",
}


def operators(repository: Path) -> list[str]:
    names = re.findall(r'library\.def\(\s*"(\w+)\(', (repository / "csrc" / "library.cpp").read_text())
    assert "aggregation" in names
    return [name for name in names if name != "cpu_capability" and not name.endswith("_implementations")]


def test_every_other_operator_has_a_kernel(repository: Path) -> None:
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    assert {name for name in operators(repository) if not has_kernel(f"sa_layers::{name}", "CUDA")} == CPU_ONLY


def test_the_limits_of_pairwise_attention_are_those_of_its_kernel(repository: Path) -> None:
    header = (repository / "csrc" / "cuda" / "pairwise_attention" / "problem.h").read_text()
    limits = dict(re.findall(r"constexpr int (k\w+) = (\d+);", header))
    assert int(limits["kMappingLayers"]) == MAPPING_LAYERS
    assert int(limits["kPositionWidth"]) == POSITION_CHANNELS
    footprint = Footprint.parse(7)

    def why_no_kernel(widths: list[int], value_channels: int) -> str | None:
        sizes = (16, value_channels, widths, 2)
        return why_no_pairwise_kernel(torch.device("cuda"), torch.float32, *sizes, footprint, "subtraction")

    widest, most = int(limits["kWidestLayer"]), int(limits["kMostValueChannels"])
    assert why_no_kernel([widest, widest, widest], most) is None
    assert f"more than {widest} channels" in str(why_no_kernel([widest + 1, 192, 96], 768))
    assert f"more than {most} channels" in str(why_no_kernel([18, 16, 8], most + 8))


def test_the_limits_of_patchwise_attention_are_those_of_its_kernel(repository: Path) -> None:
    header = (repository / "csrc" / "cuda" / "patchwise_attention" / "problem.h").read_text()
    limits = dict(re.findall(r"constexpr int (k\w+) = (\d+);", header))

    def why_no_kernel(value_channels: int, weight_channels: int, kernel_size: int) -> str | None:
        sizes = (16, value_channels, weight_channels)
        footprint = Footprint.parse(kernel_size)
        return why_no_patchwise_kernel(torch.device("cuda"), torch.float64, *sizes, footprint, "star")

    weights, values, taps = (int(limits[f"kPatchwise{name}"]) for name in ("Weights", "Values", "Taps"))
    assert why_no_kernel(64, 8, 7) is None
    assert f"more than {weights} weight channels" in str(why_no_kernel(weights + 1, weights + 1, 3))
    assert f"more than {values} channels" in str(why_no_kernel(values + 8, 8, 3))
    assert f"more than {taps} taps" in str(why_no_kernel(16, 2, 65))


def test_pairwise_attention_says_which_implementations_are_eligible() -> None:
    ask = torch.ops.sa_layers.pairwise_attention_implementations_cuda
    san = ask("float16", 16, 64, [18, 16, 8], 2, (7, 7), "subtraction", (1, 1), (1, 1)).splitlines()
    assert [line.split(":")[0] for line in san] == ["banded", "tensor_cores", "multiply_adds"]
    assert "multiply_adds" in san
    other = ask("float32", 16, 64, [16, 16, 8], 0, (7, 7), "hadamard", (2, 2), (1, 1)).splitlines()
    assert other[:2] == [
        "banded: maps are not float16 or bfloat16",
        "tensor_cores: maps are float32 and TF32 is not allowed",
    ]
    wide = ask("float16", 400, 800, [400, 400, 100], 0, (7, 7), "subtraction", (1, 1), (1, 1)).splitlines()
    assert all(line.endswith("more than 384 channels") for line in wide)
    deep = ask("float16", 4, 8, [4, 4, 4, 4, 1], 0, (3, 3), "dot", (1, 1), (1, 1)).splitlines()
    assert all(line.endswith("1 to 3 layers") for line in deep)


def test_patchwise_attention_says_which_implementations_are_eligible() -> None:
    ask = torch.ops.sa_layers.patchwise_attention_implementations_cuda
    san = ask("bfloat16", 16, 64, 8, (7, 7), "concatenation", (1, 1), (1, 1)).splitlines()
    assert [line.split(":")[0] for line in san] == ["banded", "tensor_cores", "multiply_adds"]
    star = ask("bfloat16", 16, 64, 8, (7, 7), "star", (1, 1), (1, 1)).splitlines()
    assert star[0] == "banded: the relation is not concatenation"
    wide = ask("float64", 16, 1024, 1024, (7, 7), "star", (1, 1), (1, 1)).splitlines()
    assert all(line.endswith("more than 512 weight channels") for line in wide)


@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm is here")
def test_it_calls_nothing_outside_the_stable_interface() -> None:
    library = Path(extension.__file__).parents[1] / "kernels_cuda.so"
    called = subprocess.run(
        ["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True
    ).stdout
    assert "aoti_torch_get_current_cuda_stream" in called
    assert not re.search(r"_ZNK?(2at|3c10)\d", called)  # C++ of libtorch, which changes from release to release
