"""Tools that record the calls of modules, put hooks on them or cut channels out of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention, PositionEncoding, SelfAttentionBlock
from sa_layers.models import SelfAttentionClassifier, SelfAttentionNetwork

SMALL: dict[str, Any] = {"depth": (1, 1, 2, 1, 1), "widths": (32, 32, 32, 32, 64), "kernel_sizes": (3,) * 5}
ATTENTIONS = pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
LAYERS = [PairwiseSelfAttention, PatchwiseSelfAttention]
NODES = {"stages.2.blocks.1.attention": "attention", "stages.2": "stage"}


def network(attention: str, **options: Any) -> SelfAttentionNetwork:
    """With the running statistics of some images, in evaluation mode."""
    torch.manual_seed(0)
    made = SelfAttentionNetwork(attention=attention, **SMALL | options)
    made(torch.randn(4, 3, 64, 64))
    return made.eval()


@pytest.fixture
def image() -> Tensor:
    return torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))


@ATTENTIONS
@pytest.mark.parametrize("gradients", [True, False])
def test_symbolic_trace(attention: str, gradients: bool, image: Tensor) -> None:
    """By torch's own tracer, which knows no layer of ours, for every size and whether or not gradients are needed."""
    plain = network(attention, with_cp=True)
    with torch.set_grad_enabled(gradients):
        recorded = fx.symbolic_trace(plain)
        torch.testing.assert_close(recorded(image), plain(image))
    assert set(recorded.state_dict()) == set(plain.state_dict())


@ATTENTIONS
def test_fuse_of_torch(attention: str, image: Tensor) -> None:
    """torch's own fusion of convolutions and norms follows the calls."""
    plain = network(attention).double()
    with torch.no_grad():
        torch.testing.assert_close(fuse(plain)(image.double()), plain(image.double()))


@ATTENTIONS
def test_feature_extractor_of_torchvision(attention: str, image: Tensor) -> None:
    """With the layers as leaves, which evaluate by their fused operators."""
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    plain = network(attention, out_indices=(2, 4))
    options = {"tracer_kwargs": {"leaf_modules": LAYERS}}
    extractor = extraction.create_feature_extractor(plain, NODES, **options)
    assert any(isinstance(module, tuple(LAYERS)) for module in extractor.modules())
    with torch.no_grad():
        features = extractor(image)
        torch.testing.assert_close(features["stage"], plain(image)[0])
    assert features["attention"].shape == (2, 8, 12, 8)


def test_feature_extractor_of_timm(image: Tensor) -> None:
    """timm knows the layers as leaves."""
    timm = pytest.importorskip("timm")
    import sa_layers.models.timm_registry  # noqa: F401

    options = {"features_only": True, "widths": SMALL["widths"]}
    recorded = timm.create_model("san10_patchwise", feature_cls="fx", **options).eval()
    plain = timm.create_model("san10_patchwise", **options).eval()
    assert sum(isinstance(module, PatchwiseSelfAttention) for module in recorded.modules()) == 10
    plain.model.load_state_dict(recorded.graph_module.state_dict(), strict=False)
    with torch.no_grad():
        torch.testing.assert_close(recorded(image), plain(image))


def test_identity_norms(image: Tensor) -> None:
    """A recorded block does not change its input in place either."""
    block, features = SelfAttentionBlock(32, 3, norm_layer=nn.Identity), torch.randn(1, 32, 5, 5)
    before = features.clone()
    torch.testing.assert_close(fx.symbolic_trace(block)(features), block(features))
    assert torch.equal(features, before)


def not_in_place(attention: str) -> nn.Module:
    made = SelfAttentionNetwork(attention=attention, **SMALL)
    for module in made.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return made


@ATTENTIONS
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "make",
    [lambda attention: SelfAttentionNetwork(attention=attention, act_layer=nn.ReLU, **SMALL), not_in_place],
    ids=["act_layer", "inplace"],
)
def test_full_backward_hooks(make: Callable[[str], nn.Module], attention: str, training: bool, image: Tensor) -> None:
    """On every module, as captum and Grad-CAM register them, once no activation works in place."""
    made, seen = make(attention).train(training), set()
    for name, module in made.named_modules():
        module.register_full_backward_hook(lambda *_, name=name: seen.add(name))
    made(image)[0].sum().backward()
    unseen = {name for name, module in made.named_modules() if name not in seen}
    not_called_with_values = (nn.ModuleList, PositionEncoding)  # the second uses only the size of its input
    assert all(isinstance(made.get_submodule(name), not_called_with_values) for name in unseen), unseen


@ATTENTIONS
def test_pruning(attention: str) -> None:
    """torch-pruning cuts channels around the layers, whose own channels are left as they are."""
    pruning = pytest.importorskip("torch_pruning")
    torch.manual_seed(0)
    model = SelfAttentionClassifier(attention=attention, num_classes=5, **SMALL | {"widths": (64,) * 5}).eval()
    example = torch.randn(1, 3, 64, 64)
    left = [part for layer in model.modules() if isinstance(layer, tuple(LAYERS)) for part in layer.modules()]
    importance = pruning.importance.MagnitudeImportance(p=2)
    pruner = pruning.pruner.BasePruner(
        model, example, importance, pruning_ratio=0.5, ignored_layers=[*left, model.head]
    )
    pruner.step()
    assert model.network.stages[1].transition.weight.shape == (32, 32, 1, 1)
    model(example).sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(model(example), fx.symbolic_trace(model)(example))


@ATTENTIONS
@pytest.mark.parametrize("training", [True, False])
def test_images_that_do_not_fit(attention: str, training: bool) -> None:
    """The message is about the image, whichever way is taken."""
    made = SelfAttentionNetwork(attention=attention, **SMALL).train(training)
    for shape, fragment in {
        (2, 1, 64, 64): "the image must have 3 channels, got 1",
        (3, 64, 64): r"the image must have the shape \(N, C, H, W\), got \(3, 64, 64\)",
        (2, 3, 64, 31): "the image must be at least 32 x 32 pixels",
    }.items():
        with torch.set_grad_enabled(training), pytest.raises(ValueError, match=fragment):
            made(torch.zeros(shape))
