"""The fused operator of pairwise attention computes the same with any threads and instructions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sa_layers.ops import PAIRWISE_RELATIONS, extension, pairwise_attention

from .pairwise_problem import WIDTHS, operands

pytestmark = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))


def test_threads_change_no_bit() -> None:
    """They share out the pixels by what each has left, in another way every time."""
    before = torch.get_num_threads()
    sizes = [(widths, (17, 23)) for widths in WIDTHS[:3]]
    sizes += [((4, 16, 2), (60, 45)), ((20, 64, 16), (28, 30)), ((64, 256, 32), (7, 7))]
    try:
        for widths, size in sizes:
            for dtype in (torch.float32, torch.bfloat16):
                arguments, options = operands("subtraction", widths, size, dtype, batch=3)
                results = []
                for threads in (1, 2, 3, 5, 5, 5):
                    torch.set_num_threads(threads)
                    results.append(pairwise_attention(*arguments, 7, **options))
                assert all(torch.equal(result, results[0]) for result in results)
    finally:
        torch.set_num_threads(before)


def results() -> list[Tensor]:
    """What every instruction set computes."""
    return [
        pairwise_attention(*arguments, kernel_size=5, **options)
        for arguments, options in (
            operands(relation, widths, (9, 21), dtype, epilogue=True)
            for relation in PAIRWISE_RELATIONS
            for widths in WIDTHS
            for dtype in (torch.float32, torch.bfloat16)
        )
    ]


RUN = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from ops.test_pairwise_attention_processors import results
torch.save((torch.ops.sa_layers.cpu_capability(), results()), sys.argv[2])
"""


@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_instruction_sets_agree(capability: str, tmp_path: Path) -> None:
    file = tmp_path / "results.pt"
    environment = os.environ | {"SA_LAYERS_CPU_CAPABILITY": capability}
    command = [sys.executable, "-c", RUN, str(Path(__file__).parents[1]), str(file)]
    subprocess.run(command, env=environment, check=True)
    chosen, found = torch.load(file)
    if chosen != capability:
        pytest.skip(f"this processor has no more than {chosen}")
    for one, two in zip(found, results(), strict=True):
        tolerance = 1e-5 if one.dtype == torch.float32 else 1e-2
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)
