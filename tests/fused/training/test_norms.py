"""Norms in a training step: running statistics, single norms in evaluation, and norms that are no batch norms."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention
from sa_layers.ops import PAIRWISE_RELATIONS
from tests.sampling import sample

from .conftest import assert_fused, assert_unfused
from .gaps import open_gaps
from .problem import randomise
from .step import Step, check_step, collect, errors, expected_step, like, plain_torch, take_step
from .subjects import BLOCKS, EVERY_SUBJECT, LARGE, features_for, norms_of, subject

STATISTICS: dict[str, Callable[[int], nn.Module]] = {
    "momentum 0.1": nn.BatchNorm2d,
    "momentum 0": partial(nn.BatchNorm2d, momentum=0.0),
    "momentum 1": partial(nn.BatchNorm2d, momentum=1.0),
    "cumulative average": partial(nn.BatchNorm2d, momentum=None),
    "without running statistics": partial(nn.BatchNorm2d, track_running_stats=False),
    "synchronised, in one process": nn.SyncBatchNorm,
    "large eps": partial(nn.BatchNorm2d, eps=0.1),
}


def three_steps(module: nn.Module, name: str) -> Step:
    """Of different images, with gradients that add up."""
    outputs: list[Tensor] = []
    for seed in range(3):
        step = take_step(module, features_for(name, batch=1 + seed, seed=seed))
        outputs += step.outputs.values()
    return collect(module, outputs)


@LARGE
@pytest.mark.parametrize("norm", STATISTICS)
def test_running_statistics(name: str, norm: str) -> None:
    """Of three steps and an evaluation after them; buffers stay the same tensors."""
    module = subject(name, norm_layer=STATISTICS[norm])
    buffers = dict(module.named_buffers())
    other = copy.deepcopy(module)
    assert_fused(module, features_for(name))
    steps = three_steps(module, name)
    with plain_torch():
        check_step(steps, three_steps(other, name))
        expected = take_step(other.eval(), features_for(name))
    check_step(take_step(module.eval(), features_for(name)), expected)
    for key, buffer in module.named_buffers():
        assert buffer is buffers[key]
        if key.endswith("num_batches_tracked"):
            assert buffer.dtype is torch.int64
            assert int(buffer) % 3 == 0
            assert int(buffer) in (3, 6)


@EVERY_SUBJECT
def test_without_gradients(name: str) -> None:
    """Norms in training mode use batch statistics and move the running ones, whether or not a gradient is needed."""
    module, features = subject(name), features_for(name)
    with torch.no_grad():
        expected = expected_step(module, features)
        check_step(take_step(copy.deepcopy(module), features), expected)
    module.requires_grad_(False)
    features.requires_grad_(False)
    step = take_step(module, features)
    check_step(step, expected)
    with torch.no_grad():
        assert not any(output.requires_grad for output in [module(features)] if isinstance(output, Tensor))


@LARGE
def test_single_norms_in_evaluation(name: str) -> None:
    """Each alone, and all but each: the buffers of those in evaluation do not change."""
    module, features = subject(name), features_for(name)
    for key in sample(norms_of(module), 5):
        for mode in (True, False):
            other = copy.deepcopy(module)
            for norm_name, norm in norms_of(other).items():
                norm.train((norm_name == key) is mode)
            assert_fused(other, features)
            before = copy.deepcopy(other)
            expected = expected_step(other, features)
            check_step(take_step(other, features), expected)
            for norm_name, norm in norms_of(other).items():
                if not norm.training:
                    kept = norms_of(before)[norm_name]
                    assert torch.equal(norm.running_mean, kept.running_mean), (key, norm_name)  # type: ignore[arg-type]
                    assert torch.equal(norm.running_var, kept.running_var)  # type: ignore[arg-type]
                    assert int(norm.num_batches_tracked) == int(kept.num_batches_tracked)  # type: ignore[arg-type]


@LARGE
def test_modes_between_steps(name: str) -> None:
    """Norms are put into evaluation and back, and options of norms change, between steps of one module."""
    module, other = subject(name), subject(name)

    def options(part: nn.Module, step: int) -> None:
        norms = list(norms_of(part).values())
        part.train(step != 1)
        for index, norm in enumerate(norms):
            norm.train(step in (0, 4) or (step + index) % 3 != 0)
            norm.momentum, norm.eps = (0.1, 1e-5) if step < 3 else (0.5, 1e-2)

    for step in range(5):
        for part in (module, other):
            options(part, step)
        features = features_for(name, seed=step)
        found = take_step(module, features)
        with plain_torch():
            check_step(found, take_step(other, features))


@LARGE
def test_counters_may_be_missing(name: str) -> None:
    """As in modules of old checkpoints; torch then counts nothing."""
    module, features = subject(name), features_for(name)
    for norm in norms_of(module).values():
        norm.num_batches_tracked = None
    check_step(take_step(copy.deepcopy(module), features), expected_step(module, features))


@BLOCKS
def test_one_value_for_each_channel(name: str) -> None:
    """Batch statistics need more, and torch says so."""
    module = subject(name).train()
    features = torch.randn(1, 32, 1, 1).double().requires_grad_()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        module(features)


class Doubled(nn.BatchNorm2d):
    """A subclass may compute anything."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "group norm": lambda channels: nn.GroupNorm(2 if channels % 2 == 0 else 1, channels),
    "identity": nn.Identity,
    "instance norm": partial(nn.InstanceNorm2d, affine=True, track_running_stats=True),
    "not affine": partial(nn.BatchNorm2d, affine=False),
    "subclass": Doubled,
}


@LARGE
@pytest.mark.parametrize("norm", NORMS)
def test_other_norms(name: str, norm: str) -> None:
    """As the norms of a whole module."""
    torch.manual_seed(0)
    module = subject(name, norm_layer=NORMS[norm])
    if norm not in ("identity", "not affine"):
        assert_unfused(module, features_for(name))
    check_step(take_step(copy.deepcopy(module), features_for(name)), expected_step(module, features_for(name)))


@LARGE
def test_single_replaced_norms(name: str) -> None:
    """One other norm at a time, in a module that was called before."""
    module, features = subject(name), features_for(name)
    take_step(module, features)
    for key, norm in sample(norms_of(module).items(), 4):
        for replacement in (nn.GroupNorm(1, norm.num_features), Doubled(norm.num_features), nn.Identity()):
            module.set_submodule(key, replacement.double())
            expected = expected_step(module, features)
            module.zero_grad()
            check_step(take_step(module, features), expected)
            module.set_submodule(key, norm)
    assert_fused(module, features)


@LARGE
@pytest.mark.parametrize("activation", [nn.GELU, nn.LeakyReLU, nn.ReLU6], ids=lambda kind: kind.__name__)
def test_replaced_activations(name: str, activation: type[nn.Module]) -> None:
    """One at a time: they are called, whatever they are."""
    module, features = subject(name), features_for(name)
    for key in sample([key for key, part in module.named_modules() if type(part) is nn.ReLU], 3):
        other = copy.deepcopy(module)
        other.set_submodule(key, activation())
        assert_unfused(other, features)
        expected = expected_step(other, features)
        check_step(take_step(other, features), expected)


def compare_in_float32(module: nn.Module, features: Tensor, factor: float, floor: float) -> None:
    """Errors of float32 are at most ``factor`` times the largest of plain torch's, plus ``floor``."""
    exact = expected_step(module, features)
    module, features = module.float(), like(features, torch.float32)
    with plain_torch():
        plain = errors(take_step(copy.deepcopy(module), features), exact)
    found = errors(take_step(module, features), exact)
    bound = factor * max(plain.values()) + floor
    assert max(found.values()) <= bound, {key: error for key, error in found.items() if error > bound}


@LARGE
@pytest.mark.parametrize("ratio", [10, 100, 1000])
def test_means_far_from_zero(name: str, ratio: int) -> None:
    """Statistics of maps whose mean is many times their deviation lose no more than plain torch's do."""
    torch.manual_seed(0)
    module, features = subject(name), features_for(name)
    features = (features.detach() + ratio * torch.randn(features.shape[1], 1, 1)).float().double().requires_grad_()
    open_gaps(module, features)
    compare_in_float32(module, features, 4, 1e-4)


@pytest.mark.parametrize("shift", [5.0, 20.0])
@pytest.mark.parametrize("name", ["pairwise layer", "patchwise layer", "pairwise block"])
def test_norms_with_large_biases(name: str, shift: float) -> None:
    """Second moments of what a ReLU leaves cancel if nearly nothing of it is cut off."""
    module, features = subject(name), features_for(name)
    for key, norm in norms_of(module).items():
        if key.endswith("mapping.0"):
            nn.init.constant_(norm.weight, 1.0)
            nn.init.constant_(norm.bias, shift)
    open_gaps(module, features)
    compare_in_float32(module, features, 4, 1e-4)


@LARGE
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_numbers_that_are_not_finite(name: str, value: float) -> None:
    """A NaN or an infinity in one image: NaN where plain torch has NaN, in outputs and running statistics."""
    module, features = subject(name), features_for(name)
    with torch.no_grad():
        features[1, 1, 2, 3] = value
    expected = expected_step(module, features)
    step = take_step(module, features)
    for ours, theirs in ((step.outputs, expected.outputs), (step.buffers, expected.buffers)):
        for key, wanted in theirs.items():
            result: Any = ours[key]
            assert wanted is not None
            assert torch.equal(result.isfinite(), wanted.isfinite()), key
    gradients = [gradient for gradient in step.gradients.values() if gradient is not None]
    assert not all(gradient.isfinite().all() for gradient in gradients)  # as a GradScaler looks for


POSITIONS = [(bias, size) for bias in (1.0, 10.0, 100.0) for size in (None, 100)]


@pytest.mark.parametrize(("bias", "size"), POSITIONS)
@pytest.mark.parametrize("position", ["relative", "absolute"])
def test_positions_far_from_zero(position: str, bias: float, size: int | None) -> None:
    """The bias of the position encoding moves all positions, whose differences may be small."""
    torch.manual_seed(1)
    layer = PairwiseSelfAttention(3, 16, 3, position=position, relation_channels=4, position_size=size)
    randomise(layer, random.Random(1))
    assert isinstance(layer.position, nn.Module)
    nn.init.constant_(layer.position.transform.bias, bias)
    features = torch.randn(3, 3, 12, 13).double().requires_grad_()
    layer.double()
    open_gaps(layer, features)
    compare_in_float32(layer, features, 4, 1e-4)


OPERANDS: list[tuple[type[nn.Module], str]] = [
    *((PairwiseSelfAttention, relation) for relation in PAIRWISE_RELATIONS),
    (PatchwiseSelfAttention, "concatenation"),
]


@pytest.mark.parametrize("bias", [10.0, 100.0])
@pytest.mark.parametrize(("kind", "relation"), OPERANDS)
def test_operands_far_from_zero(kind: type[nn.Module], relation: str, bias: float) -> None:
    """Queries, keys and values whose means are many times their deviations."""
    torch.manual_seed(1)
    layer: Any = kind(3, 16, 3, relation=relation, relation_channels=4)
    randomise(layer, random.Random(1))
    for transform in layer.transforms():
        nn.init.uniform_(transform.bias, -bias, bias)
    features = torch.randn(3, 3, 12, 13).double().requires_grad_()
    layer.double()
    open_gaps(layer, features)
    compare_in_float32(layer, features, 4, 1e-4)


@BLOCKS
def test_no_images(name: str) -> None:
    """An empty batch is what it is in plain torch: an error, or an empty map."""
    module, features = subject(name), features_for(name, batch=3)[:0]
    answers = []
    for context in (plain_torch, torch.enable_grad):
        with context():
            try:
                answers.append(str(copy.deepcopy(module)(features).shape))
            except (RuntimeError, ValueError) as error:
                answers.append(type(error).__name__)
    assert answers[0] == answers[1]
