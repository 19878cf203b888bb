"""Training features of mmengine's runner, each with a small network and a few iterations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("mmseg")

from mmengine.config import Config
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from .models import build, train_once
from .test_configs import CONFIGS

pytestmark = pytest.mark.openmmlab

DEMO = "segmentation/san10-patchwise_fpn_1xb8-1k_shapes-64x64.py"
SMALL: dict[str, Any] = {"depth": (1, 1, 1, 1, 1), "widths": (32, 32, 32, 32, 32), "kernel_sizes": (3, 3, 3, 3, 3)}
TWO_STAGES: dict[str, Any] = {
    "backbone": {"depth": (1, 1), "widths": (32, 32), "kernel_sizes": (3, 3), "out_indices": (0, 1)},
    "neck": {"in_channels": [32, 32], "num_outs": 2},
    "decode_head": {"in_channels": [64, 64], "in_index": [0, 1], "feature_strides": [2, 4]},
}


def small() -> Config:
    """The demo's config with a small network and four iterations."""
    config = Config.fromfile(CONFIGS / DEMO)
    config.merge_from_dict(
        {
            "model": {"backbone": SMALL, "neck": {"in_channels": [32] * 4}},
            "train_cfg": {"max_iters": 4, "val_interval": 4},
            "train_dataloader": {"batch_size": 2, "dataset": {"indices": 4}},
            "default_hooks": {"checkpoint": {"interval": 4}},
        }
    )
    del config.default_hooks.visualization
    return config


def train(config: Config, folder: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Train for four iterations in the workspace."""
    monkeypatch.chdir(workspace)
    config.work_dir = str(folder)
    for phase in ("val", "test"):
        for part in ("dataloader", "cfg", "evaluator"):
            config[f"{phase}_{part}"] = None
    # A visualizer's name is global: mmengine returns the one of an earlier test, with its backends, for the same name.
    config.experiment_name = config.visualizer.name = folder.name
    runner = Runner.from_cfg(config)
    runner.train()
    return runner


def test_moving_average_and_accumulation(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EMAHook updates its copy of the network, and gradients of two iterations are accumulated."""
    config = small()
    config.custom_hooks = [{"type": "EMAHook", "momentum": 0.5, "priority": "NORMAL"}]
    config.optim_wrapper.accumulative_counts = 2
    runner = train(config, tmp_path / "average", workspace, monkeypatch)
    checkpoint = torch.load(tmp_path / "average" / "iter_4.pth", weights_only=False)
    averaged, latest = checkpoint["state_dict"], checkpoint["ema_state_dict"]
    name = "backbone.stages.4.blocks.0.attention.query.weight"
    assert averaged[name].shape == latest[f"module.{name}"].shape
    assert not averaged[name].equal(latest[f"module.{name}"])
    steps = {int(state["step"]) for state in runner.optim_wrapper.optimizer.state.values()}
    assert steps == {2}


@pytest.mark.slow
def test_compile(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With compile=..., head and losses are compiled around the backbone. No code is generated, to save time."""
    models = []
    for name, options in {"compiled": {"compile": {"backend": "aot_eager"}}, "plain": {}}.items():
        config = small()
        config.merge_from_dict({"model": TWO_STAGES, "train_cfg": {"max_iters": 1}} | options)
        models.append(train(config, tmp_path / name, workspace, monkeypatch).model)
    compiled, plain = models
    for (name, first), second in zip(compiled.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(first, second, msg=name, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_autocast(attention: str) -> None:
    """The forward pass under autocast, as in mmengine's AmpOptimWrapper, which itself requires a GPU."""
    config = small()
    config.model.backbone.attention = attention
    model = build(config)
    with torch.autocast("cpu", torch.bfloat16):
        loss = train_once(model, "mmseg")
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_bfloat16_and_tensorboard(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, where mmengine's AmpOptimWrapper refuses to run; the losses are in TensorBoard's files."""
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = small()
    config.optim_wrapper.type = "sa_layers.AutocastOptimWrapper"
    config.visualizer.vis_backends = [{"type": "LocalVisBackend"}, {"type": "TensorboardVisBackend"}]
    config.default_hooks.logger.interval = 1
    dtypes = set()
    forward = nn.Conv2d.forward

    def recorded(layer: nn.Conv2d, features: torch.Tensor) -> torch.Tensor:
        result = forward(layer, features)
        dtypes.add(result.dtype)
        return result

    monkeypatch.setattr(nn.Conv2d, "forward", recorded)
    runner = train(config, tmp_path / "bfloat16", workspace, monkeypatch)
    assert dtypes == {torch.bfloat16}
    assert {parameter.dtype for parameter in runner.model.parameters()} == {torch.float32}
    (events,) = (tmp_path / "bfloat16").rglob("events.out.tfevents.*")
    losses = event_accumulator.EventAccumulator(str(events.parent)).Reload().Scalars("loss")
    assert [each.step for each in losses] == [1, 2, 3, 4]
    assert torch.tensor([each.value for each in losses]).isfinite().all()


def test_other_dtypes_are_refused() -> None:
    wrapper = {"type": "sa_layers.AutocastOptimWrapper", "dtype": "float16", "optimizer": {"type": "SGD", "lr": 0.1}}
    with pytest.raises(ValueError, match="dtype must be 'bfloat16', got 'float16'; use mmengine's AmpOptimWrapper"):
        build_optim_wrapper(nn.Linear(1, 1), wrapper)


def test_layer_wise_decay() -> None:
    """mmpretrain's constructor reduces the learning rate of parameters closer to the image."""
    pytest.importorskip("mmpretrain")
    config = Config.fromfile(CONFIGS / "classification/san10-pairwise_8xb32-coslr-100e_in1k.py")
    config.model.backbone.update(SMALL | {"depth": (1, 2, 1, 1, 1)})
    config.model.head.in_channels = 32
    model = build(config)
    wrapper = {
        "optimizer": {"type": "AdamW", "lr": 1.0, "weight_decay": 0.05},
        "constructor": "LearningRateDecayOptimWrapperConstructor",
        "paramwise_cfg": {"layer_decay_rate": 0.5},
    }
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        groups = build_optim_wrapper(model, wrapper).optimizer.param_groups
    rates = {group["param_name"]: group["lr"] for group in groups}
    assert rates["head.fc.weight"] == 1.0
    assert rates["backbone.stages.4.norm.weight"] == rates["backbone.stages.4.transition.weight"] == 0.5
    assert rates["backbone.stages.1.blocks.1.expansion.weight"] == rates["backbone.stages.1.norm.bias"] == 0.5**4
    assert rates["backbone.stages.1.blocks.0.norm1.weight"] == rates["backbone.stages.1.transition.weight"] == 0.5**5
    assert rates["backbone.stem.0.weight"] == 0.5**7
    assert len(rates) == len(list(model.parameters()))


def test_synchronised_norms() -> None:
    """sync_bn='torch' converts every norm, including those of the mapping. torch synchronises only on GPUs."""
    model = build(small())
    converted = convert_sync_batchnorm(model)
    norms = [module for module in converted.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(module, nn.SyncBatchNorm) for module in norms)
    assert train_once(converted, "mmseg").isfinite()  # in a single process they need not be
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in revert_sync_batchnorm(converted).modules())
