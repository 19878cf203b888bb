"""Every relation x mapping x position x sharing as a layer: derivatives by finite differences, save and load."""

from __future__ import annotations

import io
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call

from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention
from sa_layers.ops import PAIRWISE_RELATIONS, PATCHWISE_RELATIONS
from tests.sampling import sample

KINDS = [
    *product([PairwiseSelfAttention], PAIRWISE_RELATIONS, [{"position": p} for p in ("relative", "absolute", None)]),
    *product([PatchwiseSelfAttention], PATCHWISE_RELATIONS, [{}]),
]
VARIANTS = pytest.mark.parametrize(
    ("layer_type", "relation", "position"),
    KINDS,
    ids=["-".join(map(str, (kind.__name__, relation, *position.values()))) for kind, relation, position in KINDS],
)
FOOTPRINTS = (3, 5, 7, 9, 11)


def variants(layer_type: type[nn.Module], **options: Any) -> list[nn.Module]:
    """A layer for some mappings and sharings, all of them with --exhaustive, the footprints taking turns."""
    torch.manual_seed(0)
    return [
        layer_type(
            2,
            4,
            # the clique's mapping has as many inputs as the footprint has pairs of taps
            3 if options["relation"] == "clique" else FOOTPRINTS[index % len(FOOTPRINTS)],
            share=2,
            relation_channels=4 if sharing == "all" else 2,
            mapping_layers=mapping_layers,
            shared_transforms=sharing,
            **options,
        )
        for index, (mapping_layers, sharing) in enumerate(sample(product((1, 2, 3), (None, "query_key", "all")), 5))
    ]


@VARIANTS
def test_gradcheck(layer_type: type[nn.Module], relation: str, position: dict[str, Any]) -> None:
    """Of the input and of every parameter together, in float64 and training mode."""
    for layer in variants(layer_type, relation=relation, **position):
        layer.double()
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.5)  # by default a pixel's offset to itself lies on the kink of the ReLU
        names, parameters = zip(*layer.named_parameters(), strict=True)
        features = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)

        def run(
            features: torch.Tensor, *values: torch.Tensor, layer: nn.Module = layer, names: tuple[str, ...] = names
        ) -> torch.Tensor:
            return functional_call(layer, dict(zip(names, values, strict=True)), (features,))

        assert gradcheck(run, (features, *parameters), fast_mode=True, atol=1e-4)


@VARIANTS
def test_save_and_load(layer_type: type[nn.Module], relation: str, position: dict[str, Any]) -> None:
    """The state, read as weights only, and the module itself, after a step of training."""
    features = torch.randn(2, 2, 5, 4, generator=torch.Generator().manual_seed(1))
    fresh = variants(layer_type, relation=relation, **position)
    for layer, other in zip(variants(layer_type, relation=relation, **position), fresh, strict=True):
        layer(features)
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.5)
        layer.eval()
        expected = layer(features)
        assert not torch.allclose(other.eval()(features), expected)
        file = io.BytesIO()
        torch.save({"state": layer.state_dict()}, file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True)["state"])
        assert torch.equal(other(features), expected)
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        assert torch.equal(torch.load(file, weights_only=False)(features), expected)
