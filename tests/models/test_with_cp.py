"""Stages that recompute the activations of their blocks in the backward pass."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from sa_layers.models import SelfAttentionNetwork
from sa_layers.ops import backend


def test_recomputes_by_the_backend_of_the_forward_pass() -> None:
    """Although the backward pass runs outside the block, in another thread."""
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        network = SelfAttentionNetwork((1,) * 5, widths=(32,) * 5, kernel_sizes=(3,) * 5, with_cp=with_cp).double()
        image = torch.randn(2, 3, 64, 64, dtype=torch.float64)
        with backend("torch"):
            loss = network(image)[0].square().sum()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(loss.backward).result()
        gradients.append([parameter.grad for parameter in network.parameters()])
    torch.testing.assert_close(*gradients)
