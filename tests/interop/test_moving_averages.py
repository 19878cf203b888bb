"""Moving averages of parameters: evaluated and swapped, they give what the modules give with the averaged weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.data import DataLoader

from .networks import CLASSES, IMAGE, classifier, evaluate, train_step

ATTENTIONS = pytest.mark.parametrize("attention", ["pairwise", "patchwise"])


def assert_another(result: Tensor, other: Tensor) -> None:
    assert (result - other).abs().max() > 1e-3


@ATTENTIONS
def test_torch_ema(attention: str) -> None:
    """The parameters are written into the network that is trained, and back."""
    torch_ema = pytest.importorskip("torch_ema")
    model = classifier(attention)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    average = torch_ema.ExponentialMovingAverage(model.parameters(), decay=0.5)
    for seed in range(2):
        train_step(model, optimizer, seed)
        average.update()
        trained = evaluate(model, attention)
        with average.average_parameters():
            assert_another(evaluate(model, attention), trained)
        assert torch.equal(evaluate(model, attention), trained)
    average.copy_to()
    assert_another(evaluate(model, attention), trained)


@ATTENTIONS
@pytest.mark.parametrize("averages", ["parameters", "buffers too"])
def test_averaged_model_of_torch(attention: str, averages: str) -> None:
    """A copy of the network, for whose weights the running statistics are computed anew."""
    model = classifier(attention)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=averages == "buffers too")
    copy: Any = average.module
    average.update_parameters(model)  # the first time, it copies
    before = evaluate(copy, attention)
    for seed in range(2):
        train_step(model, optimizer, seed)
        average.update_parameters(model)
        average.eval()
        after = evaluate(copy, attention)
        assert_another(after, evaluate(model, attention))
        assert_another(after, before)
        before = after
    update_bn([IMAGE], average)
    assert_another(evaluate(copy.eval(), attention), before)


@ATTENTIONS
@pytest.mark.parametrize("foreach", [True, False])
def test_timm(attention: str, foreach: bool) -> None:
    """A copy of the network, with averaged running statistics."""
    utils = pytest.importorskip("timm.utils")
    model = classifier(attention)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    average = utils.ModelEmaV3(model, decay=0.5, foreach=foreach)
    for seed in range(2):
        before = evaluate(average.module, attention)
        train_step(model, optimizer, seed)
        average.update(model, step=seed + 2)
        after = evaluate(average.module, attention)
        assert_another(after, evaluate(model, attention))
        assert_another(after, before)
    average.set(model)
    assert torch.equal(evaluate(average.module, attention), evaluate(model, attention))


@pytest.mark.openmmlab
@ATTENTIONS
@pytest.mark.parametrize("update_buffers", [False, True])
def test_hook_of_mmengine(attention: str, update_buffers: bool, tmp_path: Path) -> None:
    """Validation swaps averaged weights in and out between two epochs of training."""
    pytest.importorskip("mmengine")
    from mmengine.evaluator import BaseMetric
    from mmengine.hooks import Hook
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    averaged, trained = list[Tensor](), list[Tensor]()

    class Model(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = classifier(attention)

        def forward(self, images: Tensor, labels: Tensor, mode: str) -> Any:
            if mode == "loss":
                return {"loss": F.cross_entropy(self.classifier(images), labels)}
            averaged.append(evaluate(self.classifier, attention))
            return list(averaged[-1])

    class NoMetric(BaseMetric):
        def process(self, data_batch: Any, data_samples: Sequence[Any]) -> None:
            self.results.append(len(data_samples))

        def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
            return {"images": sum(results)}

    class AfterValidation(Hook):
        priority = "LOWEST"  # after that of the average

        def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
            trained.append(evaluate(runner.model.classifier.eval(), attention))

    samples: Any = [(image, index % CLASSES) for index, image in enumerate(torch.randn(4, 3, 64, 64))]
    model = Model()
    runner = Runner(
        model,
        str(tmp_path),
        train_dataloader=DataLoader(samples, batch_size=2),
        train_cfg={"by_epoch": True, "max_epochs": 2, "val_interval": 1},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        val_dataloader=DataLoader(samples[:2], batch_size=2),
        val_cfg={},
        val_evaluator=[NoMetric()],
        custom_hooks=[{"type": "EMAHook", "momentum": 0.5, "update_buffers": update_buffers}, AfterValidation()],
        experiment_name=tmp_path.name,
    )
    runner.train()
    assert len(averaged) == len(trained) == 2
    for with_average, without in zip(averaged, trained, strict=True):
        assert_another(with_average, without)
    assert_another(trained[0], trained[1])
    assert torch.equal(evaluate(model.classifier.eval(), attention), trained[1])
