"""The weights that a layer returns are those that it uses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sa_layers.layers import ATTENTIONS
from sa_layers.ops import aggregation


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize(
    "options", [{}, {"stride": 2}, {"dilation": 2, "padding_mode": "zeros"}, {"shared_transforms": "query_key"}]
)
def test_weights_make_the_output(attention: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = ATTENTIONS[attention](8, 16, kernel_size=(3, 5), share=4, **options).double().eval()
    features = torch.randn(2, 8, 7, 9, dtype=torch.float64)
    weights = layer.weights(features)
    stride = options.get("stride", 1)
    assert weights.shape == (2, 4, 15, -(-7 // stride), -(-9 // stride))
    value = layer.transform(features)[2]
    torch.testing.assert_close(aggregation(value, weights.flatten(3), *layer.footprint), layer(features))
    if attention == "pairwise":
        assert weights.min() >= 0
        torch.testing.assert_close(weights.sum(2), torch.ones_like(weights[:, :, 0]))
    else:
        assert weights.min() < 0 < weights.max()
