"""A network in evaluation computes the same bits with any number of threads."""

from __future__ import annotations

import pytest
import torch

from sa_layers.models import SelfAttentionNetwork
from sa_layers.ops import extension


@pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_threads_change_no_bit(attention: str) -> None:
    torch.manual_seed(0)
    network = SelfAttentionNetwork((1,) * 5, attention).eval()
    image, threads, outputs = torch.randn(2, 3, 96, 96), torch.get_num_threads(), []
    try:
        with torch.no_grad():
            assert network.why_not_fused(image) is None
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                outputs += network(image)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
