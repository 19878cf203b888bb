"""The CUDA kernels compile without a warning, and the fast ones keep to registers.

By default only a sample, for the architecture whose compiler needs the most registers; with ``--exhaustive`` all
kernels, also for the oldest architecture, which has the fewest instructions. ``python tools/check_cuda.py`` compiles
for all.
"""

import subprocess
import sys
from pathlib import Path

import pytest

SPILLING = """
ptxas info    : Compiling entry function '_ZN9sa_layers4cuda17aggregation_tilesI6__halfLi7ELb1EEEvi' for 'sm_90'
ptxas info    : Function properties for _ZN9sa_layers4cuda17aggregation_tilesI6__halfLi7ELb1EEEvi
    0 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers
"""


@pytest.fixture
def check_cuda(repository: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(repository / "tools"))
    import check_cuda

    return check_cuda


def test_report_is_read(check_cuda) -> None:
    (kernel,) = check_cuda.parse_report(SPILLING)
    assert kernel == ("aggregation_tiles<float16, 7> softmax", "90", 128, 12)
    assert kernel.is_tiled
    assert kernel.spills
    assert not kernel._replace(name="banded_attention_tiles<float16>").spills
    assert "128+12" in check_cuda.table([kernel])


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("_ZN9sa_layers4cuda17aggregation_tilesIfLi7ELb0EEEvi", "aggregation_tiles<float32, 7>"),
        ("_ZN9sa_layers4cuda24pairwise_attention_tilesIfLb0EEEvi", "pairwise_attention_tiles<float32>"),
        ("_ZN9sa_layers4cuda24pairwise_attention_tilesIfLb1EEEvi", "pairwise_attention_tiles<float32> tensor cores"),
        ("_ZN9sa_layers4cuda25patchwise_attention_tilesIfLb1EEEvi", "patchwise_attention_tiles<float32> tensor cores"),
        (
            "_ZN9sa_layers4cuda31banded_pairwise_attention_tilesI6__halfNS0_13BandedMappingILi16ELi8EEELi7EEEvi",
            "banded_pairwise_attention_tiles<float16, 16, 8, 7>",
        ),
        (
            "_ZN9sa_layers4cuda32banded_patchwise_attention_tilesILi7E6__halfNS0_13BandedPatchesILi16ELi8EEEEEvi",
            "banded_patchwise_attention_tiles<float16, 7, 16, 8>",
        ),
        ("_ZN9sa_layers4cuda17affine_relu_packsIfLi4EEEvlll", "affine_relu_packs<float32, 4>"),
        (
            "_ZN9sa_layers4cuda23pooled_projection_packsIdLi2ELi3ELb1EEEvi",
            "pooled_projection_packs<float64, 2, 3> pairs",
        ),
        ("_ZN9sa_layers4cuda23pooled_projection_packsIdLi2ELi0ELb0EEEvi", "pooled_projection_packs<float64, 2, 0>"),
    ],
)
def test_kernels_of_one_name_are_told_apart(check_cuda, symbol: str, name: str) -> None:
    assert check_cuda.readable(symbol) == name


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["75", "100"])
def test_kernels_compile(check_cuda, request: pytest.FixtureRequest, repository: Path, architecture: str) -> None:
    assert architecture in check_cuda.ARCHITECTURES
    if check_cuda.find_nvcc() is None:
        pytest.skip("no CUDA compiler (nvcc) is here")
    exhaustive = request.config.getoption("--exhaustive")
    if architecture != "100" and not exhaustive:
        pytest.skip("only with --exhaustive")
    command = [sys.executable, repository / "tools" / "check_cuda.py", architecture]
    command += [] if exhaustive else ["--only", "attention/fold", "linear/normed"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
