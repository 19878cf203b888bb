"""The numbers of each channel between the passes of a norm equal torch's batch norm in float64, by every backend."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sa_layers.ops import backend, extension
from sa_layers.ops.norm_factors import norm_gradient, norm_scale_and_shift, norm_track

BACKENDS = ["torch", pytest.param("native", marks=pytest.mark.skipif(not extension.is_available(), reason="not built"))]


def statistics_of(rows: Tensor) -> Tensor:
    return torch.stack([rows.mean(0), rows.var(0, correction=0)])


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_equals_batch_norm(name: str, affine: bool, frozen: bool) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(5, eps=1e-3, affine=affine).double()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    rows, grad = torch.randn(7, 5, dtype=torch.float64, requires_grad=True), torch.randn(7, 5, dtype=torch.float64)
    norm.train(not frozen)(rows).backward(grad)

    given = rows.detach()
    statistics = torch.stack([norm.running_mean, norm.running_var]) if frozen else statistics_of(given)
    with backend(name), torch.no_grad():
        folded, coefficients = norm_scale_and_shift(statistics, norm.weight, norm.bias, norm.eps)
        sums = torch.stack([grad.sum(0), (grad * (given - statistics[0])).sum(0)])
        gradients, means, factors = norm_gradient(sums, None, folded, 0 if frozen else len(given))
    torch.testing.assert_close(
        given * folded[0] + folded[1], norm.eval()(given) if frozen else expected_output(norm, given)
    )
    torch.testing.assert_close(coefficients, folded[:2].float())
    if affine:
        torch.testing.assert_close(gradients, torch.stack([norm.weight.grad, norm.bias.grad]))
    assert rows.grad is not None
    of_rows = factors[0] * grad
    if not frozen:
        torch.testing.assert_close(folded[0] * (grad - means[0] - means[1] * (given - folded[2])), rows.grad)
        of_rows = of_rows + factors[1] * given + factors[2]
    torch.testing.assert_close(of_rows, rows.grad)


def expected_output(norm: nn.BatchNorm1d, rows: Tensor) -> Tensor:
    return torch.nn.functional.batch_norm(rows, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("numbers", [2, 9])
def test_running_statistics_equal_batch_norm(name: str, dtype: torch.dtype, numbers: int) -> None:
    torch.manual_seed(0)
    norm, rows = nn.BatchNorm1d(3, momentum=0.3).double(), torch.randn(numbers, 3, dtype=torch.float64)
    mean, variance = norm.running_mean.to(dtype), norm.running_var.to(dtype)
    norm(rows)
    with backend(name):
        norm_track(statistics_of(rows), mean, variance, 0.3, numbers)
    torch.testing.assert_close(mean, norm.running_mean.to(dtype))
    torch.testing.assert_close(variance, norm.running_var.to(dtype))


@pytest.mark.parametrize("name", BACKENDS)
def test_sums_over_processes(name: str) -> None:
    """Weight and bias have the gradients of this process, the input those of all."""
    folded, _ = norm_scale_and_shift(torch.tensor([[1.0], [3.0]]).double(), None, None, 1.0)
    sums, totals = torch.tensor([[2.0], [4.0]]).double(), torch.tensor([[6.0], [8.0]]).double()
    with backend(name):
        gradients, means, factors = norm_gradient(sums, totals, folded, 4)
        alone = norm_gradient(totals, None, folded, 4)
    assert gradients.flatten().tolist() == [2.0, 2.0]
    assert torch.equal(means, alone[1])
    assert torch.equal(factors, alone[2])
