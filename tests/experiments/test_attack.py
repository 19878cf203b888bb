"""The attack is that of torchattack, stays in its ball, and finds its targets."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from experiments.attack import attack, draw_targets, step_size
from experiments.networks import Normalized
from sa_layers.models import SelfAttentionClassifier

OPTIONS = {"depth": (1, 1), "widths": (32, 64), "kernel_sizes": (3, 3), "strides": (2, 2), "dilations": (1, 1)}


def make_network(attention: str) -> nn.Module:
    torch.manual_seed(0)
    return (
        Normalized(SelfAttentionClassifier(attention=attention, num_classes=4, num_stages=2, **OPTIONS)).double().eval()
    )


def make_images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    images = torch.rand(count, 3, 16, 16, dtype=torch.float64)
    return images, draw_targets(torch.arange(count) % 4, 4)


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
@pytest.mark.parametrize(("epsilon", "steps"), [(2, 4), (8, 10)])
def test_is_torchattacks(attention: str, epsilon: int, steps: int) -> None:
    library = pytest.importorskip("torchattack")
    network, (images, targets) = make_network(attention), make_images(8)
    size = step_size(epsilon, steps)
    pgd = library.PGD(
        network,
        device=torch.device("cpu"),
        eps=epsilon / 255,
        steps=steps,
        alpha=size / 255,
        random_start=False,
        targeted=True,
    )
    ((_, changed),) = attack(network, images, targets, epsilon, size, [steps])
    expected = pgd(images, targets)
    assert (expected - images).abs().max() > 0.9 * epsilon / 255
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(network(changed).argmax(1), network(expected).argmax(1))


def test_settings_share_their_first_steps() -> None:
    network, (images, targets) = make_network("pairwise"), make_images(4)
    both = dict(attack(network, images, targets, 4, 1.0, [3, 6]))
    for steps in (3, 6):
        ((_, alone),) = attack(network, images, targets, 4, 1.0, [steps])
        assert torch.equal(both[steps], alone)


def test_images_do_not_influence_each_other() -> None:
    network, (images, targets) = make_network("patchwise"), make_images(4)
    ((_, together),) = attack(network, images, targets, 4, 2.0, [3])
    ((_, alone),) = attack(network, images[1:2], targets[1:2], 4, 2.0, [3])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_ball(attention: str) -> None:
    """Changed images stay images and in the ball, and are closer to the target."""
    network, (images, targets) = make_network(attention), make_images(8)
    ((_, changed),) = attack(network, images, targets, 32, 8.0, [10])
    assert (changed - images).abs().max() <= 32 / 255 + 1e-12
    assert changed.min() >= 0
    assert changed.max() <= 1
    with torch.no_grad():
        before, after = (F.cross_entropy(network(each), targets) for each in (images, changed))
    assert after < before


def test_targets() -> None:
    labels = torch.arange(10).repeat(50)
    targets = draw_targets(labels, 10)
    assert not (targets == labels).any()
    assert torch.equal(targets, draw_targets(labels, 10))
    assert targets.bincount(minlength=10).min() > 20
    assert [step_size(8, steps) for steps in (2, 4, 10, 20, 100)] == [10, 5, 2, 1, 1]
