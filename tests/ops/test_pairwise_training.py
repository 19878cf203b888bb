"""The passes of pairwise attention in training: plain torch against autograd of the unfused operators, in float64, and
the native kernels against plain torch."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from sa_layers.ops import Footprint, backend, extension, pairwise_training
from sa_layers.ops.pairwise_relation import PAIRWISE_RELATIONS
from sa_layers.ops.pairwise_training_operands import PairwiseGeometry, pairwise_why_not

from .pairwise_training_problem import (
    GEOMETRIES,
    WIDTHS,
    Problem,
    check,
    expected,
    make_problem,
    running_statistics,
    train,
)


@pytest.mark.parametrize("frozen", [False, True], ids=["batch statistics", "frozen"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("position", ["relative", "absolute", None], ids=str)
@pytest.mark.parametrize("relation", PAIRWISE_RELATIONS)
def test_plain_torch(relation: str, position: str | None, geometry: tuple, frozen: bool) -> None:
    problem = make_problem(relation, geometry, WIDTHS[len(relation) % 2], position)
    statistics = running_statistics(problem) if frozen else None
    with backend("torch"):
        check(train(problem, statistics), expected(problem, statistics), problem, 1e-10)


needs_kernels = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
on_dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
TOLERANCES = {torch.float64: 1e-10, torch.float32: 2e-4, torch.bfloat16: 5e-2, torch.float16: 5e-3}
# SAN's, and some that fill no vector.
KERNEL_WIDTHS = [(4, 4, 2, 16), (16, 16, 8, 64), (32, 32, 16, 128), (64, 64, 32, 256), (20, 7, 5, 40), (1, 1, 1, 1)]


def by_plain_torch(problem: Problem, frozen: Tensor | None) -> list[Tensor]:
    with backend("torch"):
        return train(problem, frozen)


@needs_kernels
@on_dtypes
@pytest.mark.parametrize("frozen", [False, True], ids=["batch statistics", "frozen"])
@pytest.mark.parametrize("position", ["relative", "absolute", None], ids=str)
@pytest.mark.parametrize("relation", PAIRWISE_RELATIONS)
def test_kernels(relation: str, position: str | None, frozen: bool, dtype: torch.dtype) -> None:
    for index, geometry in enumerate(GEOMETRIES):
        problem = make_problem(relation, geometry, WIDTHS[index % 2], position, seed=index)
        statistics = running_statistics(problem) if frozen else None
        check(train(problem.to(dtype), statistics), by_plain_torch(problem, statistics), problem, TOLERANCES[dtype])


@needs_kernels
@pytest.mark.parametrize("relation", PAIRWISE_RELATIONS)
@pytest.mark.parametrize("widths", KERNEL_WIDTHS, ids=str)
def test_widths_of_kernels(widths: tuple[int, int, int, int], relation: str) -> None:
    problem = make_problem(relation, ((15, 9), 7, 1, 1, "reflect"), widths, batch=1)
    check(train(problem.to(torch.float32), None), by_plain_torch(problem, None), problem, 2e-2, flips=True)
    if max(widths) < 100:
        check(train(problem, None), by_plain_torch(problem, None), problem, 1e-10)


@needs_kernels
@pytest.mark.parametrize("padding_mode", ["reflect", "zeros"])
@pytest.mark.parametrize(("weights", "values"), [(1, 16), (2, 32), (4, 48)])
def test_packed_pixels(weights: int, values: int, padding_mode: str) -> None:
    """Pixels of four channels, several to a vector, with others at the ends of rows; rows of several bands."""
    for size, kernel_size, dilation in (((9, 21), 3, 1), ((37, 12), (5, 3), (1, 2)), ((7, 30), (1, 7), 1)):
        for relation, position in (("subtraction", "relative"), ("summation", None)):
            geometry = size, kernel_size, 1, dilation, padding_mode
            problem = make_problem(relation, geometry, (4, 4, weights, values), position)
            check(train(problem.to(torch.float32), None), by_plain_torch(problem, None), problem, 2e-5, flips=True)


@needs_kernels
@pytest.mark.parametrize("batch", [1, 3, 40])
@pytest.mark.parametrize("padding_mode", ["reflect", "zeros"])
def test_bands(batch: int, padding_mode: str) -> None:
    """Rows of a map that one, two or no band reads."""
    for kernel_size, stride in ((3, 1), (1, 1), (3, 5), (9, 2)):
        geometry = ((31, 6), kernel_size, stride, 1, padding_mode)
        problem = make_problem("subtraction", geometry, batch=batch)
        check(train(problem, None), by_plain_torch(problem, None), problem, 1e-9)


@needs_kernels
@pytest.mark.parametrize("relation", ["subtraction", "hadamard"])
def test_threads_change_no_bit(relation: str) -> None:
    problem = make_problem(relation, ((33, 12), 5, 1, 1, "reflect"), (16, 16, 8, 64)).to(torch.float32)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 5, 5):
            torch.set_num_threads(threads)
            results.append(train(problem, None))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


@needs_kernels
@pytest.mark.parametrize(("gamma1", "beta1"), [(1.0, 5.0), (0.1, 5.0), (0.1, 20.0), (0.0, 0.5), (0.5, -1.0)])
def test_activations_far_from_zero(gamma1: float, beta1: float) -> None:
    """Second moments do not cancel where the mean of an activation is many times its deviation."""
    problem = make_problem("subtraction", ((9, 10), 5, 1, 1, "reflect"), (16, 16, 8, 64))
    parameters = problem.parameters
    parameters = parameters._replace(gamma1=0 * parameters.gamma1 + gamma1, beta1=0 * parameters.beta1 + beta1)
    problem = problem._replace(parameters=parameters)
    wanted = by_plain_torch(problem, None)
    check(train(problem.to(torch.float32), None), wanted, problem, 2e-4)


@needs_kernels
@pytest.mark.parametrize("level", [50.0, [50.0, -10.0, 80.0]], ids=["equal", "by image"])
def test_maps_far_from_zero(level: Any) -> None:
    """Means of 50 deviations, which the difference of query and key has no trace of."""
    problem = make_problem("subtraction", ((9, 10), 5, 1, 1, "reflect"), (16, 16, 8, 64), batch=3)
    query, key, value = problem.maps
    level = torch.tensor(level).view(-1, 1, 1, 1)
    problem = problem._replace(maps=((query + level).float().double(), (key + level).float().double(), value))
    check(train(problem.to(torch.float32), None), by_plain_torch(problem, None), problem, 2e-3)


@needs_kernels
@pytest.mark.parametrize("relation", PAIRWISE_RELATIONS)
def test_a_nan_reaches_the_footprints_that_read_it(relation: str) -> None:
    problem = make_problem(relation, ((9, 9), 3, 1, 1, "reflect"), position=None, batch=1)
    statistics = running_statistics(problem)
    problem.maps[1][0, 2, 2] = torch.nan
    results = train(problem.to(torch.float32), statistics)
    with backend("torch"):
        wanted = train(problem.to(torch.float32), statistics)
    for result, reference in zip(results[:4], wanted[:4], strict=True):
        assert torch.equal(result.isfinite(), reference.isfinite())
    assert results[0][:, 4:].isfinite().all()


@needs_kernels
def test_gradients_without_contiguous_channels_are_written_too() -> None:
    problem = make_problem("subtraction", GEOMETRIES[0]).to(torch.float32)
    query, key, value = (item.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) for item in problem.maps)
    wanted = train(problem, None)
    results = train(problem._replace(maps=(query, key, value)), None)
    for result, reference in zip(results, wanted, strict=True):
        torch.testing.assert_close(result, reference)


@needs_kernels
def test_the_registrations_of_the_operators() -> None:
    problem = make_problem("subtraction", GEOMETRIES[0]).to(torch.float32)
    query, key, value = problem.maps
    described = pairwise_training._describe(problem.geometry)
    features, hidden, weights = problem.geometry.features(4), 4, 2
    vector = torch.rand(features, dtype=torch.float64) + 0.5
    rows = torch.rand(hidden, features), torch.rand(hidden), torch.rand(hidden), torch.rand(weights, hidden)
    mapping = [vector, vector, vector, vector, *rows]
    output, logsumexp = pairwise_training.native_forward(query, key, value, mapping, *described)
    grads = [torch.zeros_like(item) for item in problem.maps]
    operands = (problem.grad_output, query, key, value, output, logsumexp, mapping)
    calls: dict[str, tuple] = {
        "statistics": (query, key, *described),
        "moments": (query, key, vector, vector, *described),
        "forward": (query, key, value, mapping, *described),
        "backward": (*operands, *described, *grads),
        "correction": (query, key, mapping, torch.outer(vector, vector), vector, *described, *grads[:2]),
        "norm_backward": (query, key, vector, torch.stack([vector, vector]), *described, *grads[:2]),
    }
    for name, arguments in calls.items():
        operator = getattr(torch.ops.sa_layers, f"pairwise_training_{name}").default
        torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))


@needs_kernels
@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_instruction_sets(capability: str) -> None:
    """Run the tests of the kernels for an instruction set, in a process of its own."""
    if capability == torch.ops.sa_layers.cpu_capability():
        pytest.skip(f"this process computes with {capability}")
    selected = "test_kernels and subtraction and float or test_widths_of_kernels"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k", selected]
    environment = os.environ | {"SA_LAYERS_CPU_CAPABILITY": capability}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"widths": [6, 2]}, "the mapping has 1 layer, not 2"),
        ({"widths": [7, 4, 2]}, "the mapping has 7 inputs, which are not the features of a pair"),
        ({"widths": [6, 4, 3]}, "the 3 channels of the weights do not divide the 16 of the value"),
        ({"positions": 5}, "a position has 5 features, more than 4"),
        ({"dtype": torch.complex64}, "the maps are torch.complex64"),
    ],
    ids=str,
)
def test_why_not(changes: dict[str, Any], reason: str | None) -> None:
    geometry = PairwiseGeometry(Footprint.parse(7), "subtraction")
    sizes: dict[str, Any] = {"dtype": torch.float32, "channels": 4, "value_channels": 16, "widths": [6, 4, 2]}
    assert pairwise_why_not(**sizes | {"positions": 2, "geometry": geometry} | changes) == reason
