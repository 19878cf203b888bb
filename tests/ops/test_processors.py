"""The fused kernels of the CPU compute the same with any number of threads and any instruction set."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sa_layers.ops import PAIRWISE_RELATIONS, extension, pairwise_attention, patchwise_attention

from . import pairwise_problem, patchwise_problem, test_projection

pytestmark = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
CAPABILITIES = ("default", "avx2", "avx512")


@pytest.fixture
def threads() -> Iterator[None]:
    """Restores the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_threads_change_no_bit_of_pairwise_attention() -> None:
    """Threads share out the pixels by what each has left, in another way every time."""
    sizes = [(widths, (17, 23)) for widths in pairwise_problem.WIDTHS[:3]]
    sizes += [((4, 16, 2), (60, 45)), ((20, 64, 16), (28, 30)), ((64, 256, 32), (7, 7))]
    for widths, size in sizes:
        for dtype in (torch.float32, torch.bfloat16):
            arguments = pairwise_problem.operands("subtraction", widths, size, dtype, batch=3)
            results = []
            for number in (1, 2, 3, 5, 5, 5):
                torch.set_num_threads(number)
                results.append(pairwise_attention(**arguments, kernel_size=7))
            assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.usefixtures("threads")
def test_threads_change_no_bit_of_patchwise_attention() -> None:
    for widths, size in (((4, 16, 2, 3), (60, 45)), ((16, 64, 8, 7), (28, 30)), ((32, 128, 16, 7), (7, 7))):
        arguments = patchwise_problem.operands(widths, size, batch=1)
        results = []
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(patchwise_attention(**arguments))
        assert all(torch.equal(result, results[0]) for result in results)


def compute() -> dict[str, list[Tensor]]:
    """The results that instruction sets are compared by."""
    pairwise = [
        pairwise_attention(**pairwise_problem.operands(relation, widths, (9, 21), dtype, epilogue=True), kernel_size=5)
        for relation in PAIRWISE_RELATIONS
        for widths in pairwise_problem.WIDTHS
        for dtype in (torch.float32, torch.bfloat16)
    ]
    problems = [patchwise_problem.operands(widths, (9, 8)) for widths in patchwise_problem.WIDTHS]
    problems += [
        patchwise_problem.operands(patchwise_problem.WIDTHS[6], (9, 8), relation=relation)
        for relation in ("star", "clique")
    ]
    projection = [
        result
        for shape in ((15, 300, 40), (230, 17, 96), (3, 512, 32), (40, 1100, 160))
        for result in test_projection.compute(test_projection.problem(*shape), torch.float32)
    ]
    several = test_projection.problem(21, 40, 24)
    layers = test_projection.make_linear(several, torch.float32, (4, 4, 16))
    projection += test_projection.compute(several, torch.float32, layers)
    patchwise = [patchwise_attention(**problem) for problem in problems]
    return {"pairwise": pairwise, "patchwise": patchwise, "projection": projection}


RUN = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from ops.test_processors import compute
torch.save((torch.ops.sa_layers.cpu_capability(), compute()), sys.argv[2])
"""


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_instruction_sets_agree(capability: str, tmp_path: Path, repository: Path) -> None:
    here = torch.ops.sa_layers.cpu_capability()
    if capability == here:
        pytest.skip(f"this process computes with {here}")
    if here not in CAPABILITIES or CAPABILITIES.index(capability) > CAPABILITIES.index(here):
        pytest.skip(f"this processor has no more than {here}")
    file = tmp_path / "results.pt"
    environment = os.environ | {"SA_LAYERS_CPU_CAPABILITY": capability}
    subprocess.run([sys.executable, "-c", RUN, str(repository / "tests"), str(file)], env=environment, check=True)
    chosen, found = torch.load(file)
    assert chosen == capability
    for name, results in compute().items():
        for one, two in zip(found[name], results, strict=True):
            tolerance = 1e-5 if one.dtype == torch.float32 else 1e-2
            scale = max(1.0, two.abs().max().item())
            torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance * scale)
