"""The same bits in every run, and with any number of threads."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from sa_layers.models import SelfAttentionNetwork

from .conftest import FUSED_TRAINING, assert_fused
from .step import Step, check_step, take_step
from .subjects import EVERY_SUBJECT, features_for, norms_of, subject

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def differing(first: Step, second: Step) -> list[str]:
    """The names of tensors that are not equal bit for bit."""
    names = []
    for ours, theirs in zip(first, second, strict=True):
        for key, tensor in ours.items():
            other: Tensor | None = theirs[key]
            if tensor is None or other is None:
                assert tensor is other
            elif not torch.equal(tensor, other):
                names.append(key)
    return names


@EVERY_SUBJECT
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_repeated_steps(name: str, dtype: torch.dtype) -> None:
    """With memory that held other numbers before."""
    module, features = subject(name).to(dtype), features_for(name).detach().to(dtype).requires_grad_()
    first = take_step(copy.deepcopy(module), features)
    for number in range(3):
        rubbish = [torch.full((size,), float("nan")) for size in (100, 10_000, 1_000_000) for _ in range(number)]
        del rubbish
        assert not differing(take_step(copy.deepcopy(module), features), first)


def larger(attention: str, evaluated: bool) -> tuple[nn.Module, Tensor]:
    """Maps of several bands of rows and blocks of pixels, which threads share."""
    torch.manual_seed(0)
    options = {"widths": (32, 64, 64, 64, 64), "kernel_sizes": (3, 7, 3, 3, 3), "num_stages": 2}
    network = SelfAttentionNetwork((1,) * 5, attention, **options)
    for norm in norms_of(network).values():
        norm.train(not evaluated)
    return network, torch.randn(3, 3, 66, 58, requires_grad=True)


@pytest.mark.parametrize("evaluated", [False, True], ids=["batch statistics", "frozen norms"])
@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
@DTYPES
def test_threads_change_no_bit(attention: str, dtype: torch.dtype, evaluated: bool) -> None:
    """Of outputs, gradients and running statistics; torch's own operators are only nearly the same."""
    module, features = larger(attention, evaluated)
    assert_fused(module, features)
    steps = []
    for number in (1, 2, 3):
        with threads(number), torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            steps.append(take_step(copy.deepcopy(module), features))
    for step in steps[1:]:
        if FUSED_TRAINING:
            assert not differing(step, steps[0])
        elif dtype is torch.float32:
            check_step(step, steps[0], 0.05)  # a mask may flip
