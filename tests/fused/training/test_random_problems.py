"""Random modules, from layers to classifiers: a step of training equals plain torch's, in float64 and in float32."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.sampling import exhaustive, sample

from . import problem
from .conftest import assert_fused
from .step import check_step, errors, expected_step, like, plain_torch, take_step

SEEDS = range(3) if exhaustive() else range(1)
ROUNDING = 1e-4
"""What float32 may lose, of the largest number of a tensor, whatever plain torch loses."""


WELL_CONDITIONED = 3e-4
"""What plain torch may lose in float32; problems that lose more, as some norms of almost equal numbers do, are drawn
again."""


def drawn(case: tuple[str, ...], seed: int) -> problem.Problem:
    if case[0] == "backbone":
        pytest.importorskip("mmcv")
    return problem.draw(*case, seed=seed)


def check_path(case: tuple[str, ...], module: nn.Module, features: Tensor) -> None:
    """Two linear layers in the mapping, as all published networks have, are always fused for these relations."""
    synchronised = any(isinstance(part, nn.SyncBatchNorm) for part in module.modules())
    if case[4] == 2 and case[2] not in ("star", "clique") and not synchronised:
        assert_fused(module, features)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("case", sample(problem.CASES, 40), ids=str)
def test_in_float64(case: tuple[str, ...], seed: int) -> None:
    """Outputs, the gradients of all parameters and of the input, and all buffers."""
    given = drawn(case, seed)
    check_path(case, given.module, given.features)
    expected = expected_step(given.module, given.features)
    check_step(take_step(given.module, given.features), expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("case", sample(problem.CASES, 40, seed=1), ids=str)
def test_in_float32(case: tuple[str, ...], seed: int) -> None:
    """As close to float64 as plain torch in float32, where no rounding changes a mask or the winner of a pooling."""
    for attempt in range(20):
        given = drawn(case, seed + 100 * attempt)
        if given.margin > 1e-5:
            exact = expected_step(given.module, given.features)
            module, features = given.module.float(), like(given.features, torch.float32)
            with plain_torch():
                plain = errors(take_step(copy.deepcopy(module), features), exact)
            if max(plain.values()) < WELL_CONDITIONED:
                break
    check_path(case, module, features)
    found = errors(take_step(module, features), exact)
    bound = 10 * max(plain.values()) + ROUNDING
    wrong = {name: (error, plain[name]) for name, error in found.items() if not error <= bound}
    assert not wrong, f"errors, and those of plain torch: {wrong}\n{given}"
