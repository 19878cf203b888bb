"""The passes of patchwise attention in training, against autograd of the unfused operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sa_layers.ops import PATCHWISE_RELATIONS, Footprint, aggregation, backend, patchwise_relation
from sa_layers.ops import patchwise_training as training
from sa_layers.ops import patchwise_training_in_torch as in_torch
from sa_layers.ops.patchwise_operands import features_of

FOOTPRINTS = [
    ((2, 6, 7), Footprint.parse(3)),
    ((1, 9, 8), Footprint.parse((3, 5), (2, 1), (1, 2))),
    ((3, 5, 4), Footprint.parse(3, 2, 1, "zeros")),
    ((2, 3, 2), Footprint.parse(7)),
    ((1, 1, 1), Footprint.parse(3)),
    ((2, 5, 9), Footprint.parse(5, 3, 2, "zeros")),
]


@pytest.mark.parametrize("relation", PATCHWISE_RELATIONS)
@pytest.mark.parametrize("has_frozen_norms", [True, False])
@pytest.mark.parametrize(("size", "footprint"), FOOTPRINTS)
def test_agrees_with_autograd(
    size: tuple[int, int, int], footprint: Footprint, has_frozen_norms: bool, relation: str
) -> None:
    if relation == "clique" and footprint.taps > 25:
        return
    leaves = make_leaves(size, footprint, relation)
    tensors = [leaf.requires_grad_() for leaf in leaves.values()]
    expected_output = unfused(leaves, footprint, relation, has_frozen_norms)
    gradient = torch.randn(expected_output.shape, generator=generator()).double()
    expected = torch.autograd.grad(expected_output, tensors, gradient)
    with torch.no_grad():
        output, actual = fused(leaves, footprint, relation, has_frozen_norms, gradient)
    torch.testing.assert_close(output, expected_output.detach(), rtol=1e-9, atol=1e-9)
    for name, reference in zip(leaves, expected, strict=True):
        scale = max(1.0, reference.abs().max().item())
        torch.testing.assert_close(actual[name], reference, rtol=1e-8, atol=1e-8 * scale, msg=f"{name} differs")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def make_leaves(size: tuple[int, int, int], footprint: Footprint, relation: str) -> dict[str, Tensor]:
    """Random maps and parameters in float64; 3 relation channels, 2 weight channels, 4 value channels."""
    source, channels, weight_channels = generator(), 3, 2
    features, taps = features_of(relation, channels, footprint.taps), footprint.taps

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source).double()

    return {
        "query": normal(*size, channels),
        "key": normal(*size, channels) + 0.5,
        "value": normal(*size, 2 * weight_channels),
        "gamma1": normal(features),
        "beta1": normal(features),
        "weight1": normal(weight_channels, features) / features**0.5,
        "gamma2": normal(weight_channels),
        "beta2": normal(weight_channels),
        "weight2": normal(weight_channels * taps, weight_channels),
        "bias2": normal(weight_channels * taps),
    }


EPSILON = 1e-2  # a map of one pixel has no variance


def unfused(leaves: dict[str, Tensor], footprint: Footprint, relation: str, has_frozen_norms: bool) -> Tensor:
    """The output, (N, Ho, Wo, C), by operators that have derivatives."""
    kernel_size, stride, dilation, padding_mode = footprint
    geometry = {"stride": stride, "dilation": dilation, "padding_mode": padding_mode}
    query, key, value = (leaves[name].permute(0, 3, 1, 2) for name in ("query", "key", "value"))
    features = patchwise_relation(query, key, kernel_size, relation, **geometry).squeeze(2)

    def norm(planes: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        if has_frozen_norms:
            return planes * (0.8 * gamma)[:, None] + (beta - 0.1 * gamma)[:, None]
        if planes.shape[0] * planes.shape[2] == 1:  # which batch_norm refuses
            return (planes - planes.mean((0, 2))[:, None]) * EPSILON**-0.5 * gamma[:, None] + beta[:, None]
        return F.batch_norm(planes, None, None, gamma, beta, training=True, eps=EPSILON)

    hidden = leaves["weight1"] @ torch.relu(norm(features, leaves["gamma1"], leaves["beta1"]))
    activated = torch.relu(norm(hidden, leaves["gamma2"], leaves["beta2"]))
    weights = leaves["weight2"] @ activated + leaves["bias2"][:, None]
    with backend("torch"):
        output = aggregation(value, weights.unflatten(1, (-1, footprint.taps)), kernel_size, **geometry)
    return output.permute(0, 2, 3, 1)


def fused(
    leaves: dict[str, Tensor], footprint: Footprint, relation: str, has_frozen_norms: bool, gradient: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The output and the gradients of the leaves, by the passes and the algebra between them."""
    query, key, value = leaves["query"], leaves["key"], leaves["value"]
    gamma1, beta1, gamma2, beta2 = (leaves[name] for name in ("gamma1", "beta1", "gamma2", "beta2"))
    weight1, weight2, bias2 = leaves["weight1"], leaves["weight2"], leaves["bias2"]
    geometry = (query, key, footprint, relation)

    mean1, deviation1 = statistics_of(training.patchwise_statistics(*geometry), has_frozen_norms)
    scale1, shift1 = gamma1 / deviation1, beta1 - mean1 * gamma1 / deviation1
    z = training.patchwise_hidden(*geometry, scale1, shift1, weight1)
    pixels = z.flatten(0, 2)
    moments = torch.stack([pixels.mean(0), pixels.var(0, correction=0)])
    mean2, deviation2 = statistics_of(moments, has_frozen_norms)
    scale2, shift2 = gamma2 / deviation2, beta2 - mean2 * gamma2 / deviation2
    mapping = (z, value, footprint, scale2, shift2, weight2, bias2)
    output = training.patchwise_forward(*mapping)

    gradients = {name: torch.full_like(leaves[name], torch.nan) for name in ("query", "key", "value")}
    grad_hidden, grad_weight2, grad_bias2 = training.patchwise_backward(gradient, *mapping, gradients["value"])
    masked = (grad_hidden * (z * scale2 + shift2 > 0)).flatten(0, 2)
    normalized = (pixels - mean2) / deviation2
    grad_beta2, grad_gamma2, count = masked.sum(0), (masked * normalized).sum(0), len(masked)
    if not has_frozen_norms:
        masked = masked - grad_beta2 / count - normalized * grad_gamma2 / count
    grad_z = (masked * scale2).view_as(z)
    maps = (gradients["query"], gradients["key"])
    grad_weight1, sums = training.patchwise_hidden_backward(grad_z, *geometry, scale1, shift1, mean1, weight1, *maps)
    if not has_frozen_norms:
        factors = scale1 / count * torch.stack([sums[0], sums[1] / deviation1**2])
        training.patchwise_norm_backward(*geometry, mean1, factors, *maps)
    gradients |= {"gamma1": sums[1] / deviation1, "beta1": sums[0], "weight1": grad_weight1}
    gradients |= {"gamma2": grad_gamma2, "beta2": grad_beta2, "weight2": grad_weight2, "bias2": grad_bias2}
    return output, gradients


def statistics_of(moments: Tensor, has_frozen_norms: bool) -> tuple[Any, Any]:
    """The mean and the deviation that a norm uses."""
    if has_frozen_norms:
        return torch.full_like(moments[0], 0.125), torch.full_like(moments[0], 1.25)
    return moments[0], (moments[1] + EPSILON).sqrt()


# R, C, Cw, size, footprint: few and many channels, padded lanes, several slices, several bands of an image.
SIZES = [
    (4, 16, 2, (2, 9, 10), Footprint.parse(3)),
    (16, 64, 8, (1, 9, 12), Footprint.parse(7)),
    (32, 48, 16, (2, 7, 7), Footprint.parse(7)),
    (40, 80, 40, (1, 5, 6), Footprint.parse(5, 2)),
    (3, 15, 5, (3, 6, 5), Footprint.parse(3, 1, 2, "zeros")),
    (20, 24, 1, (1, 8, 9), Footprint.parse(3, (1, 2), 1, "zeros")),
    (8, 36, 4, (1, 60, 41), Footprint.parse(5)),
    (17, 64, 32, (1, 64, 40), Footprint.parse(3, 1, 3, "zeros")),
    (5, 16, 8, (1, 120, 30), Footprint.parse(3, (5, 1))),
    (6, 200, 200, (1, 3, 4), Footprint.parse(3)),
    (4, 16, 8, (2, 1, 1), Footprint.parse(3, 1, 1, "zeros")),
    (16, 16, 16, (1, 2, 3), Footprint.parse((1, 13))),
]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("sizes", SIZES)
def test_kernels_agree_with_plain_torch(sizes: tuple, dtype: torch.dtype) -> None:
    expected = all_passes(*sizes, dtype=torch.float64, values_of=dtype, name="torch")
    actual = all_passes(*sizes, dtype=dtype, values_of=dtype, name="native")
    for name, reference in expected.items():
        limit = TOLERANCES[dtype if actual[name].dtype == dtype else torch.float32] if dtype != torch.float64 else 1e-12
        error = (actual[name].double() - reference).abs().max() / reference.abs().max().clamp(min=1e-3)
        assert error <= limit, f"{name} has a relative error of {error:.1e}"


@pytest.mark.parametrize("sizes", SIZES[4:8])
def test_kernels_do_not_depend_on_the_number_of_threads(sizes: tuple) -> None:
    threads = torch.get_num_threads()
    results = []
    for count in (1, 3):
        torch.set_num_threads(count)
        results.append(all_passes(*sizes, dtype=torch.float32, values_of=torch.float32, name="native"))
    torch.set_num_threads(threads)
    for name, first in results[0].items():
        assert torch.equal(first, results[1][name]), name


@pytest.mark.parametrize("name", ["torch", "native"])
def test_accepts_no_images(name: str) -> None:
    results = all_passes(
        4, 8, 4, (0, 5, 6), Footprint.parse(3), dtype=torch.float32, values_of=torch.float32, name=name
    )
    assert results["output"].shape == (0, 5, 6, 8)
    for key in ("grad_weight1", "grad_weight2", "grad_bias2", "sums"):
        assert not results[key].any(), key


@pytest.mark.parametrize("name", ["torch", "native"])
def test_statistics_of_a_large_mean(name: str) -> None:
    key = torch.randn(2, 9, 8, 3, generator=generator()) + 1000
    query, footprint = key.flip(1) * 2, Footprint.parse(5)
    with backend(name):
        actual = training.patchwise_statistics(query, key, footprint, "concatenation")
    features = in_torch.features_of(query.double(), key.double(), footprint, "concatenation")
    torch.testing.assert_close(actual[0], features.mean((0, 2)), rtol=1e-12, atol=0)
    torch.testing.assert_close(actual[1], features.var((0, 2), correction=0), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["torch", "native"])
def test_nan_and_inf_propagate(name: str) -> None:
    footprint, ones = Footprint.parse(3), torch.ones(16 * 10)
    query, key = torch.ones(1, 6, 6, 16), torch.ones(1, 6, 6, 16)
    key[0, 0, 0, 3], key[0, 5, 5, 2] = torch.nan, torch.inf
    with backend(name):
        z = training.patchwise_hidden(query, key, footprint, "concatenation", ones, ones, torch.ones(2, 160))
        value = torch.ones(1, 6, 6, 4)
        mapping = (z, value, footprint, ones[:2], ones[:2], torch.ones(18, 2), torch.ones(18))
        output = training.patchwise_forward(*mapping)
    assert z[0, 2:4].isfinite().all()
    for result in (z, output):
        assert result[0, :2, :2].isnan().all()
        assert result[0, 4:, 4:].isinf().all()


def test_says_what_the_kernels_do_not_support() -> None:
    sizes = (torch.float32, 16, 64, 8, Footprint.parse(7))
    assert training.patchwise_why_not(*sizes, "concatenation") is None
    assert "'clique'" in (training.patchwise_why_not(*sizes, "clique") or "")


def all_passes(
    channels: int,
    value_channels: int,
    weight_channels: int,
    size: tuple[int, int, int],
    footprint: Footprint,
    *,
    dtype: torch.dtype,
    values_of: torch.dtype,
    name: str,
) -> dict[str, Tensor]:
    """The results of every pass on slices of wider maps.

    Maps hold numbers that all dtypes have, and no pre-activation is near zero, so that no ReLU differs by rounding.
    """
    source, compute = generator(), torch.promote_types(dtype, torch.float32)
    features, taps = features_of("concatenation", channels, footprint.taps), footprint.taps
    output_size = footprint.output_size(*size[1:])

    def quantized(*shape: int) -> Tensor:
        return torch.randint(-16, 17, shape, generator=source).double() / 8

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source).double()

    def shift(count: int) -> Tensor:
        return (torch.randint(-8, 9, (count,), generator=source) + 0.5).double() / 128

    wide = quantized(*size, 2 * channels + value_channels).to(dtype)
    query, key, value = wide.split([channels, channels, value_channels], 3)
    gradients = torch.full_like(wide, torch.nan)
    grad_query, grad_key, grad_value = gradients.split([channels, channels, value_channels], 3)
    scale1, shift1, mean1 = quantized(features).to(compute), shift(features).to(compute), quantized(features)
    weight1 = normal(weight_channels, features).float().to(compute)
    z = quantized(size[0], *output_size, weight_channels).to(compute)
    scale2, shift2 = quantized(weight_channels).to(compute), shift(weight_channels).to(compute)
    weight2 = normal(weight_channels * taps, weight_channels).float().to(compute)
    bias2 = normal(weight_channels * taps).float().to(compute)
    grad_output = normal(size[0], *output_size, value_channels).to(values_of).to(dtype)
    grad_z = normal(size[0], *output_size, weight_channels).float().to(compute)
    geometry = (query, key, footprint, "concatenation")
    with backend(name):
        results = {"statistics": training.patchwise_statistics(*geometry)}
        results["z"] = training.patchwise_hidden(*geometry, scale1, shift1, weight1)
        mapping = (z, value, footprint, scale2, shift2, weight2, bias2)
        results["output"] = training.patchwise_forward(*mapping)
        gradient, grad_weight2, grad_bias2 = training.patchwise_backward(grad_output, *mapping, grad_value)
        results |= {"grad_hidden": gradient, "grad_weight2": grad_weight2, "grad_bias2": grad_bias2}
        arguments = (scale1, shift1, mean1, weight1, grad_query, grad_key)
        grad_weight1, sums = training.patchwise_hidden_backward(grad_z, *geometry, *arguments)
        results |= {"grad_weight1": grad_weight1, "sums": sums}
        maps = {"grad_query": grad_query, "grad_key": grad_key, "grad_value": grad_value}
        results |= {key: item.clone() for key, item in maps.items()}
        factors = quantized(2, features)
        training.patchwise_norm_backward(*geometry, mean1, factors, grad_query, grad_key)
        results |= {"norm_query": grad_query, "norm_key": grad_key}
    return results
