"""The linear layers in training, with a norm and a ReLU before them: every way against autograd in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sa_layers.ops import AffineReLU, backend, extension
from sa_layers.ops.linear_training import linear_backward_input, linear_backward_weight, linear_forward
from tests.sampling import exhaustive

from .weight_forms import FORMS, strided

TOLERANCES = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 3e-2, torch.float16: 4e-3}
on_dtypes = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
needs_kernels = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
on_backends = pytest.mark.parametrize("name", [None, "torch"])


class Problem(NamedTuple):
    """Operands in float64."""

    pixels: Tensor
    weights: list[Tensor]
    biases: list[Tensor | None]
    prologue: AffineReLU | None
    residual: Tensor
    grad: Tensor
    mean: Tensor

    def to(self, dtype: torch.dtype) -> Problem:
        wide = torch.promote_types(dtype, torch.float32)
        return Problem(
            self.pixels.to(dtype),
            [weight.to(dtype) for weight in self.weights],
            [None if bias is None else bias.to(dtype) for bias in self.biases],
            self.prologue and AffineReLU(*(item.to(wide) for item in self.prologue)),
            self.residual.to(dtype),
            self.grad.to(dtype),
            self.mean,
        )


def make_problem(
    size: tuple[int, int, int], channels: int, layers: Sequence[int], *, prologue: bool = True, biases: bool = True
) -> Problem:
    """Numbers that bfloat16 holds, none of them near the kink of the ReLU."""
    torch.manual_seed(sum(size) + channels + sum(layers))
    width = sum(layers)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape).bfloat16().double()

    pixels, scale, shift = draw(*size, channels), draw(channels), draw(channels)
    # a pixel whose activation nearly vanishes would have another sign in another dtype
    pixels[(scale * pixels + shift).abs() < 1e-2] += 1
    return Problem(
        pixels,
        [draw(layer, channels) for layer in layers],
        [draw(layer) if biases else None for layer in layers],
        AffineReLU(scale, shift) if prologue else None,
        draw(*size, width),
        draw(*size, width),
        draw(channels),
    )


class Results(NamedTuple):
    """All results of a problem: with and without a residual, a list each."""

    outputs: list[Tensor]
    grad_pixels: Tensor
    sums: Tensor | None
    grad_weights: list[Tensor]
    grad_biases: list[Tensor]


def compute(problem: Problem) -> Results:
    forward = problem.pixels, problem.weights, problem.biases, problem.prologue
    outputs = [linear_forward(*forward), linear_forward(*forward, problem.residual)]
    sizes = [len(weight) for weight in problem.weights]
    with_bias = problem.biases[0] is not None
    return Results(
        outputs,
        *linear_backward_input(problem.grad, problem.weights, problem.pixels, problem.prologue, problem.mean),
        *linear_backward_weight(problem.grad, problem.pixels, problem.prologue, sizes, with_bias),
    )


def expected(problem: Problem) -> Results:
    """By autograd in float64."""
    normed = problem.pixels if problem.prologue is None else problem.pixels * problem.prologue[0] + problem.prologue[1]
    normed = normed.detach().requires_grad_()
    weights = [weight.detach().flatten(1).requires_grad_() for weight in problem.weights]
    biases = [None if bias is None else bias.detach().requires_grad_() for bias in problem.biases]
    active = normed.relu() if problem.prologue is not None else normed
    output = torch.cat([torch.nn.functional.linear(active, *pair) for pair in zip(weights, biases, strict=True)], -1)
    leaves = [normed, *weights, *(bias for bias in biases if bias is not None)]
    gradients = list(torch.autograd.grad(output, leaves, problem.grad))
    d = gradients[0].flatten(0, 2)
    centred = problem.pixels.flatten(0, 2) - problem.mean
    sums = torch.stack([d.sum(0), (d * centred).sum(0)]) if problem.prologue is not None else None
    count = len(weights) + 1
    return Results(
        [output.detach(), output.detach() + problem.residual], gradients[0], sums, gradients[1:count], gradients[count:]
    )


def check(problem: Problem, dtype: torch.dtype) -> None:
    tolerance = TOLERANCES[dtype]
    results, wanted = compute(problem.to(dtype)), expected(problem)
    compare(results.outputs, wanted.outputs, dtype, tolerance)
    compare([results.grad_pixels], [wanted.grad_pixels], dtype, tolerance)
    # sums over pixels, whose rounding errors do not cancel where the numbers do
    tolerance *= max(1, problem.pixels[..., 0].numel() / 64) ** 0.5
    compare(results.grad_weights, wanted.grad_weights, dtype, tolerance)
    compare(results.grad_biases, wanted.grad_biases, dtype, tolerance)
    assert (results.sums is None) == (wanted.sums is None)
    if results.sums is not None and wanted.sums is not None:
        compare([results.sums], [wanted.sums], torch.float64, tolerance)


def compare(results: Sequence[Tensor], wanted: Sequence[Tensor], dtype: torch.dtype, tolerance: float) -> None:
    assert len(results) == len(wanted)
    for result, want in zip(results, wanted, strict=True):
        assert result.shape == want.shape
        assert result.dtype == dtype
        scale = 1 + want.abs().max().item() if want.numel() else 1
        torch.testing.assert_close(result.double(), want, rtol=0, atol=tolerance * scale)


LAYERS = st.lists(st.integers(1, 100) | st.integers(1, 600), min_size=1, max_size=3)


@settings(deadline=None, max_examples=60 if exhaustive() else 25)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20)),
    st.integers(1, 100) | st.integers(1, 600),
    LAYERS,
    st.booleans(),
    st.booleans(),
)
def test_random_shapes(
    size: tuple[int, int, int], channels: int, layers: list[int], prologue: bool, biases: bool
) -> None:
    """Part-filled vectors and blocks of pixels, of input and of output channels."""
    check(make_problem(size, channels, layers, prologue=prologue, biases=biases), torch.float32)


@on_backends
@on_dtypes
@pytest.mark.parametrize("prologue", [True, False])
@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize(
    ("size", "channels", "layers"),
    [((2, 5, 7), 37, [4, 4, 16]), ((1, 3, 3), 64, [24]), ((3, 9, 8), 16, [80]), ((2, 12, 13), 272, [8, 90])],
)
def test_against_autograd(
    size: tuple[int, int, int],
    channels: int,
    layers: list[int],
    biases: bool,
    prologue: bool,
    dtype: torch.dtype,
    name: str | None,
) -> None:
    with backend(name):
        check(make_problem(size, channels, layers, prologue=prologue, biases=biases), dtype)


@on_backends
@on_dtypes
@pytest.mark.parametrize("form", FORMS)
def test_weights_as_modules_hold_them(form: str, dtype: torch.dtype, name: str | None) -> None:
    problem = make_problem((2, 3, 7), 40, [4, 4, 16])
    wanted = compute(problem.to(dtype))
    changed = problem.to(dtype)
    changed = changed._replace(weights=[FORMS[form](weight) for weight in changed.weights])
    with backend(name):
        compare_all(compute(changed), wanted, 10 * TOLERANCES[dtype])


@on_backends
@on_dtypes
def test_slices_of_wider_maps(dtype: torch.dtype, name: str | None) -> None:
    """Of their channels: rows have a stride, and the other channels are not read."""
    problem = make_problem((2, 3, 7), 40, [4, 4, 16]).to(dtype)
    wanted = compute(problem)

    def sliced(pixels: Tensor) -> Tensor:
        beside = torch.full_like(pixels, torch.nan)[..., :3]
        return torch.cat([beside, pixels, beside], -1)[..., 3:-3]

    maps = {name: sliced(getattr(problem, name)) for name in ("pixels", "grad", "residual")}
    with backend(name):
        compare_all(compute(problem._replace(**maps)), wanted, 10 * TOLERANCES[dtype])


@on_backends
@on_dtypes
def test_operands_of_any_strides(dtype: torch.dtype, name: str | None) -> None:
    problem = make_problem((2, 3, 7), 40, [4, 4, 16]).to(dtype)
    wanted = compute(problem)
    channels_first = problem.pixels.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert problem.prologue is not None
    changed = problem._replace(
        pixels=channels_first,
        biases=[bias if bias is None else strided(bias) for bias in problem.biases],
        prologue=AffineReLU(*map(strided, problem.prologue)),
        grad=problem.grad[:1, :1, :1].expand_as(problem.grad),
        mean=strided(problem.mean),
    )
    with backend(name):
        results = compute(changed)
        compare(results.outputs, [output.double() for output in wanted.outputs], dtype, 10 * TOLERANCES[dtype])
        same = compute(changed._replace(grad=changed.grad.contiguous()))
        compare_all(results, same, 10 * TOLERANCES[dtype])


@on_backends
def test_layers_of_which_some_have_a_bias(name: str | None) -> None:
    problem = make_problem((2, 3, 7), 40, [4, 4, 16]).to(torch.float32)
    zeros = torch.zeros(4)
    with backend(name):
        some = compute(problem._replace(biases=[problem.biases[0], None, problem.biases[2]]))
        compare_all(some, compute(problem._replace(biases=[problem.biases[0], zeros, problem.biases[2]])), 0)


@on_backends
@pytest.mark.parametrize("size", [(0, 3, 3), (2, 0, 3)])
def test_no_pixels(size: tuple[int, int, int], name: str | None) -> None:
    with backend(name):
        check(make_problem(size, 5, [3, 4]), torch.float32)


@on_backends
def test_nan_and_inf_propagate_as_in_torch(name: str | None) -> None:
    """The mask of the gradient is that of torch's ReLU: NaN lets it pass, and a masked gradient is 0."""
    problem = make_problem((1, 1, 4), 5, [3]).to(torch.float32)
    assert problem.prologue is not None
    problem.pixels[0, 0, 1, 2] = torch.nan
    problem.grad[0, 0, 2] = torch.inf
    problem.grad[0, 0, 3] = torch.nan
    with backend(name):
        results = compute(problem)
    normed = torch.addcmul(problem.prologue.shift, problem.pixels, problem.prologue.scale).requires_grad_()
    output = normed.relu().flatten(0, 2) @ problem.weights[0].t() + problem.biases[0]
    output.unflatten(0, (1, 1, 4)).backward(problem.grad)
    torch.testing.assert_close(results.outputs[0], output.detach().unflatten(0, (1, 1, 4)), equal_nan=True)
    torch.testing.assert_close(results.grad_pixels, normed.grad, equal_nan=True)


def compare_all(results: Results, wanted: Results, tolerance: float) -> None:
    for result, want in zip(tensors_of(results), tensors_of(wanted), strict=True):
        compare([result], [want.double()], result.dtype, tolerance)


def tensors_of(results: Results) -> list[Tensor]:
    sums = [] if results.sums is None else [results.sums]
    return [*results.outputs, results.grad_pixels, *sums, *results.grad_weights, *results.grad_biases]


@on_backends
@on_dtypes
def test_writes_into_slices(dtype: torch.dtype, name: str | None) -> None:
    """Channels of a wider map, whose other channels stay as they are; and the residual itself."""
    problem = make_problem((2, 3, 7), 37, [4, 4, 16]).to(dtype)
    forward = problem.pixels, problem.weights, problem.biases, problem.prologue
    backward = problem.grad, problem.weights, problem.pixels, problem.prologue, problem.mean
    with backend(name):
        for wanted, function, arguments in (
            (linear_forward(*forward), linear_forward, forward),
            (linear_backward_input(*backward)[0], linear_backward_input, backward),
        ):
            wide = torch.full((2, 3, 7, wanted.shape[3] + 5), 7, dtype=dtype)
            function(*arguments, out=wide[..., 2:-3])  # type: ignore[operator]
            assert torch.equal(wide[..., 2:-3], wanted)
            assert (wide[..., :2] == 7).all()
            assert (wide[..., -3:] == 7).all()
        wanted, total = linear_forward(*forward, problem.residual), problem.residual.clone()
        assert linear_forward(*forward, total, out=total) is total
        assert torch.equal(total, wanted)


@needs_kernels
@pytest.mark.parametrize(
    ("pixels", "channels", "width"), [(49, 300, 96), (300, 1100, 160), (2100, 70, 48), (5000, 24, 20), (500, 520, 600)]
)
def test_threads_change_no_bit(pixels: int, channels: int, width: int) -> None:
    problem, before = make_problem((1, 1, pixels), channels, [width]).to(torch.float32), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(tensors_of(compute(problem)))
    finally:
        torch.set_num_threads(before)
    assert all(all(map(torch.equal, results[0], other)) for other in results[1:])


@needs_kernels
def test_sums_over_many_pixels_stay_accurate() -> None:
    """The means of gradients and pixels are far from 0, so that every partial sum grows with the pixels."""
    problem = make_problem((1, 320, 320), 16, [24])
    problem = problem._replace(grad=problem.grad + 2, pixels=problem.pixels + 8)
    results, wanted = compute(problem.to(torch.float32)), expected(problem)
    compare(results.grad_weights, wanted.grad_weights, torch.float32, 1e-6)
    compare(results.grad_biases, wanted.grad_biases, torch.float32, 1e-6)
    assert results.sums is not None
    assert wanted.sums is not None
    compare([results.sums], [wanted.sums], torch.float64, 1e-6)


MAP = torch.zeros(1, 2, 2, 8)


@needs_kernels
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": torch.zeros(4, 8)}, "pixels must have 4 dimensions"),
        ({"pixels": MAP.double()}, "pixels must be float32"),
        ({"weights": []}, "weights must be a list of tensors"),
        ({"weights": [torch.zeros(5, 7)]}, "weights must have 8 input channels"),
        ({"weights": [torch.zeros(5, 8).double()]}, "weights must have the dtype"),
        ({"weights": [torch.zeros(2, 8), torch.zeros(3, 7)]}, r"weights must have the shape \(3, 8\), got \(3, 7\)"),
        ({"biases": [torch.zeros(4)]}, r"biases must have the shape \(5\), got \(4\)"),
        ({"biases": [torch.zeros(5)] * 2}, "biases must be empty or as many as weights, got 2 and 1"),
        ({"scale": torch.zeros(8)}, "scale and shift must be given together"),
        ({"residual": MAP}, r"residual must have the shape \(1, 2, 2, 5\)"),
        ({"result": MAP}, r"result must have the shape \(1, 2, 2, 5\)"),
        ({"result": torch.zeros(1, 2, 5, 2).transpose(2, 3)}, "result must be channels last"),
        ({"result": torch.zeros(1, 1, 1, 5).expand(1, 2, 2, 5)}, "result must be channels last"),
    ],
)
def test_refusals_of_forward(change: dict[str, Any], message: str) -> None:
    """Calls that would read or write out of bounds."""
    arguments = {
        "pixels": MAP,
        "weights": [torch.zeros(5, 8)],
        "biases": [],
        **dict.fromkeys(("scale", "shift", "residual")),
        "result": torch.zeros(1, 2, 2, 5),
    }
    torch.ops.sa_layers.linear_forward(**arguments)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.sa_layers.linear_forward(**arguments | change)


@needs_kernels
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad": MAP}, r"grad must have 5 channels, got the shape \(1, 2, 2, 8\)"),
        ({"weights": [torch.zeros(5, 7)]}, r"result must have the shape \(1, 2, 2, 7\)"),
        ({"pixels": None}, "pixels, scale, shift and mean must be given together"),
        ({"mean": None}, "pixels, scale, shift and mean must be given together"),
        ({"shift": None}, "scale and shift must be given together"),
        ({"mean": torch.zeros(7).double()}, r"mean must have the shape \(8\), got \(7\)"),
        ({"mean": torch.zeros(8)}, "mean must be float64"),
        ({"pixels": torch.zeros(1, 2, 2, 9)}, r"pixels must have the shape \(1, 2, 2, 8\)"),
        ({"result": torch.zeros(1, 2, 1, 8)}, r"result must have the shape \(1, 2, 2, 8\)"),
    ],
)
def test_refusals_of_backward_input(change: dict[str, Any], message: str) -> None:
    arguments = {
        "grad": torch.zeros(1, 2, 2, 5),
        "weights": [torch.zeros(5, 8)],
        "pixels": MAP,
        "scale": torch.zeros(8),
        "shift": torch.zeros(8),
        "mean": torch.zeros(8).double(),
        "result": torch.zeros(1, 2, 2, 8),
    }
    torch.ops.sa_layers.linear_backward_input(**arguments)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.sa_layers.linear_backward_input(**arguments | change)


@needs_kernels
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad": torch.zeros(1, 2, 3, 5)}, r"pixels must have the shape \(1, 2, 3, 8\)"),
        ({"grad": torch.zeros(1, 2, 2, 5).double()}, "grad must be float32"),
        ({"scale": torch.zeros(8), "shift": torch.zeros(7)}, "shift must have the shape"),
    ],
)
def test_refusals_of_backward_weight(change: dict[str, Any], message: str) -> None:
    arguments = {"grad": torch.zeros(1, 2, 2, 5), "pixels": MAP, "scale": None, "shift": None, "with_bias": True}
    torch.ops.sa_layers.linear_backward_weight(**arguments)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.sa_layers.linear_backward_weight(**arguments | change)
