"""The backbone's OpenMMLab features: indices, freezing, norms, checkpointing and initialisation."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

pytest.importorskip("mmengine")
pytest.importorskip("mmcv")

from mmengine.model import BaseModule, revert_sync_batchnorm

from sa_layers.backbones import SAN
from sa_layers.models import SelfAttentionNetwork

SMALL: dict[str, Any] = {"depth": (1, 1, 2, 1, 1), "widths": (32, 32, 64, 64, 96), "kernel_sizes": (3, 3, 5, 3, 7)}
ATTENTIONS = pytest.mark.parametrize("attention", ["pairwise", "patchwise"])


def small(attention: str = "pairwise", **options: Any) -> SAN:
    """A backbone of a few thousand parameters, the same at every call, in training mode."""
    torch.manual_seed(0)
    backbone = SAN(attention=attention, **SMALL | options)
    backbone.init_weights()
    return backbone.train()


@pytest.fixture
def image() -> torch.Tensor:
    """Two images."""
    return torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))


@ATTENTIONS
def test_equals_the_plain_network(attention: str, image: torch.Tensor) -> None:
    """The same modules under the same names as the network in plain torch, and a module of mmengine's."""
    backbone = small(attention).eval()
    network = SelfAttentionNetwork(attention=attention, **SMALL).eval()
    network.load_state_dict(backbone.state_dict())
    assert torch.equal(backbone(image)[0], network(image)[0])
    assert isinstance(backbone, BaseModule)


@pytest.mark.parametrize("depth", [10, 15, 19])
def test_shapes_are_those_of_a_resnet(depth: int) -> None:
    """The channels and strides of a ResNet-50's four stages."""
    backbone = SAN(depth, "patchwise", out_indices=(1, 2, 3, 4)).eval()
    with torch.no_grad():
        outputs = backbone(torch.randn(1, 3, 64, 32))
    shapes = [(1, 256, 16, 8), (1, 512, 8, 4), (1, 1024, 4, 2), (1, 2048, 2, 1)]
    assert [tuple(output.shape) for output in outputs] == shapes


@pytest.mark.parametrize("out_indices", [4, -1, (0,), [1, 2, 3, 4], (-2, -1)])
def test_out_indices(out_indices: Any, image: torch.Tensor) -> None:
    """An integer, a tuple or a list, as in configs. The output is always a tuple."""
    backbone = small(out_indices=out_indices)
    outputs = backbone(image)
    assert isinstance(outputs, tuple)
    assert [output.shape[1] for output in outputs] == list(backbone.out_channels)
    assert len(outputs) == (1 if isinstance(out_indices, int) else len(out_indices))


@pytest.mark.parametrize("frozen_stages", range(-1, 5))
def test_frozen_stages(frozen_stages: int, image: torch.Tensor) -> None:
    """Frozen modules are in evaluation mode, have no gradients and do not change in a training step."""
    backbone = small(frozen_stages=frozen_stages)
    frozen = [] if frozen_stages < 0 else [backbone.stem, *backbone.stages[: frozen_stages + 1]]
    trained = [module for module in [backbone.stem, *backbone.stages] if all(module is not other for other in frozen)]
    backbone.eval()
    backbone.train()
    for modules, expected in ((frozen, False), (trained, True)):
        for module in modules:
            assert all(child.training is expected for child in module.modules())
            assert all(parameter.requires_grad is expected for parameter in module.parameters())
    before = copy.deepcopy(backbone.state_dict())
    if trained:
        optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
        backbone(image)[0].square().sum().backward()
        optimizer.step()
    changed = {name for name, values in backbone.state_dict().items() if not torch.equal(values, before[name])}
    parts = ["stem.", *(f"stages.{index}." for index in range(5))]
    assert [any(name.startswith(part) for name in changed) for part in parts] == [
        index > frozen_stages + 1 or frozen_stages < 0 for index in range(6)
    ]


@pytest.mark.parametrize("frozen_stages", [5, -2, None])
def test_frozen_stages_error(frozen_stages: Any) -> None:
    """The message names the argument, what was given and what is allowed."""
    with pytest.raises(ValueError, match=rf"frozen_stages must be from -1 \(none\) to 4, got {frozen_stages}"):
        small(frozen_stages=frozen_stages)


@pytest.mark.parametrize("options", [{"depth": 34}, {"out_indices": 5}, {"strides": (3, 2, 2, 2, 2)}, {"share": 7}])
def test_errors_of_the_network(options: dict[str, Any]) -> None:
    """Invalid arguments of the network raise the network's own errors."""
    with pytest.raises(ValueError, match=next(iter(options))):
        small(**options)


def test_norm_eval(image: torch.Tensor) -> None:
    """Batch norms keep their running statistics during training."""
    backbone = small(norm_eval=True)
    norms = [module for module in backbone.modules() if isinstance(module, _BatchNorm)]
    assert norms
    assert backbone.training
    assert not any(norm.training for norm in norms)
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    before = [norm.running_mean.clone() for norm in norms]
    backbone(image)[0].sum().backward()
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))
    assert all(norm.training for norm in small(norm_eval=False).modules() if isinstance(norm, _BatchNorm))


@ATTENTIONS
@pytest.mark.parametrize("frozen_stages", [-1, 1])
def test_with_cp(attention: str, frozen_stages: int, image: torch.Tensor) -> None:
    """Recomputing activations changes neither features nor gradients, also with frozen stages."""
    results = []
    for with_cp in (False, True):
        backbone = small(attention, with_cp=with_cp, frozen_stages=frozen_stages).double()
        output = backbone(image.double())[0]
        output.square().mean().backward()
        results.append([output, *(parameter.grad for parameter in backbone.parameters() if parameter.requires_grad)])
    torch.testing.assert_close(*results)


@ATTENTIONS
def test_group_norm(attention: str, image: torch.Tensor) -> None:
    """norm_cfg reaches every norm, those of the mappings too."""
    backbone = small(attention, norm_cfg={"type": "GN", "num_groups": 2}, widths=(64, 64, 64, 64, 128))
    assert not any(isinstance(module, _BatchNorm) for module in backbone.modules())
    mapping = backbone.stages[0].blocks[0].attention.mapping
    assert isinstance(mapping[0], nn.GroupNorm)
    backbone(image)[0].sum().backward()
    batched = backbone(image)[0]
    torch.testing.assert_close(backbone(image[:1])[0], batched[:1])


def test_sync_batch_norm(image: torch.Tensor) -> None:
    """norm_cfg can ask for SyncBN, and torch and mmengine can convert to it and back."""
    configured = small(norm_cfg={"type": "SyncBN", "requires_grad": True})
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(small())
    for backbone in (configured, converted):
        norms = [module for module in backbone.modules() if isinstance(module, _BatchNorm)]
        assert norms
        assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    expected = small().eval()(image)[0]
    torch.testing.assert_close(revert_sync_batchnorm(converted).eval()(image)[0], expected)
    torch.testing.assert_close(revert_sync_batchnorm(configured).eval()(image)[0], expected)


def test_norm_without_gradients() -> None:
    """norm_cfg's requires_grad, which belongs to build_norm_layer."""
    backbone = small(norm_cfg={"type": "BN", "requires_grad": False})
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):
            assert not module.weight.requires_grad


@ATTENTIONS
def test_act_cfg(attention: str, image: torch.Tensor) -> None:
    """act_cfg reaches every activation."""
    backbone = small(attention, act_cfg={"type": "GELU"})
    assert not any(isinstance(module, nn.ReLU) for module in backbone.modules())
    assert backbone(image)[0].min() < 0


@pytest.mark.parametrize("out_indices", [(4,), (1, 2)])
def test_pretrained(out_indices: Any, tmp_path: Path, image: torch.Tensor) -> None:
    """The backbone of a whole detector's checkpoint, by init_cfg's prefix, also one with fewer stages."""
    trained = small()
    trained(image)  # moves the running statistics
    state = {f"backbone.{name}": values for name, values in trained.state_dict().items()}
    torch.save({"state_dict": state | {"neck.weight": torch.zeros(3)}}, tmp_path / "detector.pth")
    torch.manual_seed(1)
    init_cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "detector.pth"), "prefix": "backbone."}
    backbone = SAN(**SMALL, out_indices=out_indices, init_cfg=init_cfg)
    assert not torch.equal(backbone.stem[0].weight, trained.stem[0].weight)
    backbone.init_weights()
    assert len(backbone.stages) == out_indices[-1] + 1
    for name, values in backbone.state_dict().items():
        assert torch.equal(values, trained.state_dict()[name]), name


def test_init_cfg_of_layers() -> None:
    """mmengine's initialisers are applied to the layers. Without init_cfg, torch's initialisation is kept."""
    backbone = small(init_cfg=[{"type": "Constant", "layer": "Conv2d", "val": 0.25}])
    assert all((module.weight == 0.25).all() for module in backbone.modules() if isinstance(module, nn.Conv2d))
    default = small()
    before = copy.deepcopy(default.state_dict())
    default.init_weights()
    assert all(torch.equal(values, before[name]) for name, values in default.state_dict().items())


@ATTENTIONS
def test_strides_and_dilations(attention: str) -> None:
    """Output stride 8, as for semantic segmentation."""
    backbone = small(attention, strides=(2, 2, 2, 1, 1), dilations=(1, 1, 1, 2, 4), out_indices=(1, 2, 3, 4))
    assert backbone.out_strides == (4, 8, 8, 8)
    sizes = [tuple(features.shape[2:]) for features in backbone(torch.randn(2, 3, 40, 24))]
    assert sizes == [(10, 6), (5, 3), (5, 3), (5, 3)]


def test_copies(image: torch.Tensor) -> None:
    """Copied and pickled, the backbone computes the same and stays frozen."""
    backbone = small(frozen_stages=1, norm_cfg={"type": "BN"}).eval()
    for other in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert torch.equal(other(image)[0], backbone(image)[0])
        assert not other.train().stem.training


def test_layer_depths() -> None:
    """Layer depths of the stem, transitions, blocks, final norms and the head."""
    backbone = small()
    expected = {
        "stem.0.weight": 0,
        "stem.1.bias": 0,
        "stages.0.transition.weight": 1,
        "stages.0.blocks.0.attention.mapping.2.weight": 1,
        "stages.0.norm.weight": 1,
        "stages.2.transition.weight": 3,
        "stages.2.blocks.1.norm1.weight": 4,
        "stages.2.norm.bias": 4,
        "stages.4.norm.bias": 6,
    }
    assert {name: backbone.get_layer_depth(name) for name in expected} == {
        name: (depth, 8) for name, depth in expected.items()
    }
    assert backbone.get_layer_depth("backbone.stages.4.norm.bias", "backbone.") == (6, 8)
    assert backbone.get_layer_depth("head.fc.weight", "backbone.") == (7, 8)
    depths = [backbone.get_layer_depth(name)[0] for name, _ in backbone.named_parameters()]
    assert depths == sorted(depths)
    assert set(depths) == set(range(7))


def test_layer_wise_learning_rates() -> None:
    """As mmpretrain's optimizer constructor asks for them, through its classifier."""
    pytest.importorskip("mmpretrain")
    from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
    from mmpretrain.models import ImageClassifier

    head = {"type": "LinearClsHead", "num_classes": 3, "in_channels": 96}
    model = ImageClassifier(small(), neck={"type": "GlobalAveragePooling"}, head=head)
    constructor = LearningRateDecayOptimWrapperConstructor(
        {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 1.0, "weight_decay": 0.1}},
        {"layer_decay_rate": 0.5},
    )
    groups = {group["param_name"]: group["lr"] for group in constructor(model).optimizer.param_groups}
    assert groups["head.fc.weight"] == 1
    assert groups["backbone.stages.4.blocks.0.norm1.weight"] == 0.5
    assert groups["backbone.stages.4.norm.weight"] == 0.5
    assert groups["backbone.stages.2.blocks.0.norm1.weight"] == 0.5**4
    assert groups["backbone.stem.0.weight"] == 0.5**7
    assert set(groups) == {name for name, _ in model.named_parameters()}


def test_position_image_size() -> None:
    """Positions have the scale of the given image size."""
    backbone = small(position_image_size=224)
    assert [stage.blocks[0].attention.position.size for stage in backbone.stages][1:4] == [(56, 56), (28, 28), (14, 14)]
