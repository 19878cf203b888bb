"""In-place operations before and after a network compute what the same operations out of place do."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sa_layers.models import SelfAttentionNetwork

SMALL: dict[str, Any] = {"depth": (1,) * 5, "widths": (16, 16, 16, 16, 32), "kernel_sizes": (3,) * 5, "share": 2}


def results(network: nn.Module, image: Tensor, *, before: bool, after: bool) -> list[Tensor]:
    """The output between two operations, in place or not, and the gradients of image and parameters."""
    image = image.detach().requires_grad_()
    scaled = 2 * image
    (output,) = network(scaled.add_(1) if before else scaled.add(1))
    changed = output.mul_(2).relu_() if after else output.mul(2).relu()
    return [changed, *torch.autograd.grad(changed.sum(), [image, *network.parameters()])]


@pytest.mark.parametrize("norm_layer", [nn.BatchNorm2d, nn.Identity])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_between_in_place_operations(attention: str, training: bool, norm_layer: type[nn.Module]) -> None:
    """A ReLU at the end keeps its output, as in a ResNet, so that only another activation may be followed by one."""
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for act_layer in (partial(nn.ReLU, inplace=True), nn.SiLU):
        torch.manual_seed(0)
        options = SMALL | {"norm_layer": norm_layer, "act_layer": act_layer}
        network = SelfAttentionNetwork(attention=attention, **options).train(training)
        out_of_place = results(network, image, before=False, after=False)
        in_place = results(network, image, before=True, after=act_layer is nn.SiLU)
        torch.testing.assert_close(in_place, out_of_place, rtol=0, atol=0)


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_maps_of_evaluation_belong_to_the_caller(attention: str) -> None:
    """Changing the maps of one call in place, each after the other, changes neither the others nor the next call's."""
    torch.manual_seed(0)
    network, image = (
        SelfAttentionNetwork(attention=attention, out_indices=range(5), **SMALL).eval(),
        torch.randn(1, 3, 64, 64),
    )
    with torch.no_grad():
        expected = [features.clone() for features in network(image)]
        outputs = network(image)
        for features, wanted in zip(outputs, expected, strict=True):
            assert torch.equal(features, wanted)
            features.mul_(2).add_(1).relu_()
        for features, wanted in zip(network(image), expected, strict=True):
            assert torch.equal(features, wanted)
