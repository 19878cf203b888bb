"""with_cp: results, gradients and buffers of a training step are those of a network that keeps its activations."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from sa_layers.models import SelfAttentionNetwork
from sa_layers.models.recomputation import recompute
from sa_layers.ops import backend

SMALL: dict[str, Any] = {"depth": (1, 1, 2, 1, 1), "widths": (32, 32, 32, 32, 64), "kernel_sizes": (3,) * 5}
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch norm": nn.BatchNorm2d,
    "cumulative average": partial(nn.BatchNorm2d, momentum=None),
    "synchronised": nn.SyncBatchNorm,
    "instance norm": partial(nn.InstanceNorm2d, affine=True, track_running_stats=True),
    "without statistics": partial(nn.BatchNorm2d, track_running_stats=False),
}


def step(network: nn.Module, images: Tensor, backward: Callable[[Tensor], Any]) -> list[Tensor | None]:
    """Two forward and backward passes; the results, gradients and buffers."""
    outputs = [network(images), network(images.flip(0) + 1)]
    outputs = [output[0] if isinstance(output, tuple) else output for output in outputs]
    for output in outputs:
        backward(output.square().mean())
    return [*outputs, *(parameter.grad for parameter in network.parameters()), *network.buffers()]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_a_step(attention: str, norm: str) -> None:
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    results = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        network = SelfAttentionNetwork(attention=attention, norm_layer=NORMS[norm], with_cp=with_cp, **SMALL).double()
        results.append(step(network, images, Tensor.backward))
    torch.testing.assert_close(*results)


class Recomputed(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        return recompute(self.module, images.requires_grad_())


def test_any_buffer_and_a_second_backward_pass() -> None:
    """Power iterations of a spectral norm and dropout; a graph that is retained is run backward twice."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(spectral_norm(nn.Conv2d(3, 4, 1)), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Sigmoid())

    def twice(loss: Tensor) -> None:
        loss.backward(retain_graph=True)
        loss.backward()

    images, results = torch.randn(2, 3, 4, 4), []
    for network in (make(), Recomputed(make())):
        torch.manual_seed(1)
        results.append(step(network, images.clone(), twice))
    torch.testing.assert_close(*results)


def test_frozen_norms_keep_their_buffers() -> None:
    """And buffers stay the same tensors, as an optimizer or DistributedDataParallel expects."""
    module = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3).eval())
    buffers = list(module.buffers())
    recompute(module, torch.randn(1, 3, 4, 4, requires_grad=True)).sum().backward()
    assert all(before is after for before, after in zip(buffers, module.buffers(), strict=True))
    assert [int(norm.num_batches_tracked) for norm in module] == [1, 0]


def test_buffers_are_restored_after_an_error() -> None:
    norm = nn.BatchNorm2d(3)
    mean = norm.running_mean
    output = recompute(norm, torch.randn(1, 3, 4, 4, requires_grad=True))
    norm.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("in the second call")))
    with pytest.raises(RuntimeError, match="in the second call"):
        output.sum().backward()
    assert norm.running_mean is mean


def test_recomputes_by_the_backend_of_the_forward_pass() -> None:
    """Although the backward pass runs outside the block, in another thread."""
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        network = SelfAttentionNetwork(with_cp=with_cp, **SMALL).double()
        image = torch.randn(2, 3, 64, 64, dtype=torch.float64)
        with backend("torch"):
            loss = network(image)[0].square().sum()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(loss.backward).result()
        gradients.append([parameter.grad for parameter in network.parameters()])
    torch.testing.assert_close(*gradients)
