"""Every relation x footprint x mapping x position x sharing as a network: built, run forward and backward."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from sa_layers.models import SelfAttentionNetwork
from sa_layers.ops import PAIRWISE_RELATIONS, PATCHWISE_RELATIONS
from tests.sampling import sample

RELATIONS = {"pairwise": PAIRWISE_RELATIONS, "patchwise": PATCHWISE_RELATIONS}
FOOTPRINTS = (3, 5, 7, 9, 11)
MAPPINGS = (1, 2, 3)
POSITIONS = ("relative", "absolute", None)
SHARINGS = (None, "query_key", "all")
KINDS = [(attention, relation) for attention, relations in RELATIONS.items() for relation in relations]


def check(size: int, attention: str, kernel_sizes: tuple[int, ...], **options: Any) -> None:
    """Forward and backward in training mode, from scratch: everything finite, every parameter with a gradient."""
    network = SelfAttentionNetwork(
        (1,) * 5, attention, kernel_sizes=kernel_sizes, widths=(16, 16, 16, 16, 32), share=2, **options
    )
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (output,) = network(image)
    assert output.shape == (1, 32, size // 32, size // 32)
    output.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, (name, options)
        assert parameter.grad.isfinite().all(), (name, options)
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert image.grad.abs().max() > 0


@pytest.mark.parametrize("footprint", FOOTPRINTS)
@pytest.mark.parametrize(("attention", "relation"), KINDS)
def test_at_64_pixels(attention: str, relation: str, footprint: int) -> None:
    """In every stage: the maps of the last ones are smaller than any footprint. All of them with --exhaustive."""
    torch.manual_seed(0)
    positions: tuple[dict[str, Any], ...] = ({},)
    if attention == "pairwise":
        positions = tuple({"position": position} for position in POSITIONS)
    for mapping_layers, position, sharing in sample(product(MAPPINGS, positions, SHARINGS), 4, seed=footprint):
        options = {"relation": relation, "mapping_layers": mapping_layers, "shared_transforms": sharing} | position
        check(64, attention, (footprint,) * 5, **options)


@pytest.mark.parametrize("footprint", FOOTPRINTS)
@pytest.mark.parametrize(("attention", "relation"), KINDS)
def test_at_224_pixels(attention: str, relation: str, footprint: int) -> None:
    """A selection in which any two options meet with every pair of their values (test_selection)."""
    torch.manual_seed(0)
    check(224, attention, (3, *(footprint,) * 4), **selected(attention, relation, footprint))


def selected(attention: str, relation: str, footprint: int) -> dict[str, Any]:
    """The other options that go with a relation and a footprint."""
    row, column = RELATIONS[attention].index(relation), FOOTPRINTS.index(footprint)
    options: dict[str, Any] = {"relation": relation, "mapping_layers": MAPPINGS[(row + column) % 3]}
    if attention == "patchwise":
        return options | {"shared_transforms": SHARINGS[(row + 2 * column) % 3]}
    sharing = SHARINGS[(row + column + row // 3 + column // 3) % 3]
    return options | {"position": POSITIONS[(row + 2 * column) % 3], "shared_transforms": sharing}


def test_selection() -> None:
    """It covers the pairs that it claims to cover."""
    for attention, relations in RELATIONS.items():
        values = [relations, FOOTPRINTS, MAPPINGS, SHARINGS, *[POSITIONS] * (attention == "pairwise")]
        runs = []
        for relation, footprint in product(relations, FOOTPRINTS):
            options = selected(attention, relation, footprint)
            run = (
                relation,
                footprint,
                options["mapping_layers"],
                options["shared_transforms"],
                options.get("position"),
            )
            runs.append(run)
        for one, other in product(range(len(values)), repeat=2):
            met = {(run[one], run[other]) for run in runs}
            assert one == other or len(met) == len(values[one]) * len(values[other])
