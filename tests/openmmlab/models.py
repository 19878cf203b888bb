"""Models built from configs, and small batches for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData


def need(scope: str) -> None:
    """Skip the test if the toolbox, or for mmdet the compiled operators of mmcv, are not installed."""
    if scope == "mmdet":
        pytest.importorskip("mmcv._ext", exc_type=ImportError)
    pytest.importorskip(scope)


def build(config: Config) -> torch.nn.Module:
    """Build and initialise the model of a config in its default scope, without loading a checkpoint."""
    torch.manual_seed(0)
    model = config.model.copy()
    if "num_queries" in model:
        model.num_queries = 20  # no more than a tiny image has pixels at its strides
    model.setdefault("data_preprocessor", config.get("data_preprocessor"))
    with DefaultScope.overwrite_default_scope(config.default_scope):
        built = MODELS.build(model)
        for module in built.modules():
            if "Pretrained" in str(getattr(module, "init_cfg", None)):
                module.init_cfg = None
        built.init_weights()  # DETRs have parameters that are memory as it was found until then
        return built


def batch(scope: str, number: int = 2, size: int = 64) -> tuple[torch.Tensor, list[Any]]:
    """Make images with annotations: two objects of two classes in each image."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(number, 3, size, size, generator=generator)
    return images, [SAMPLES[scope](size, index) for index in range(number)]


def _metainfo(size: int, index: int) -> dict[str, Any]:
    shape = (size, size)
    shapes = dict.fromkeys(("img_shape", "ori_shape", "pad_shape", "batch_input_shape"), shape)
    return {"img_id": index, "scale_factor": (1.0, 1.0), **shapes}


def _classified(size: int, index: int) -> Any:
    from mmpretrain.structures import DataSample

    return DataSample(metainfo=_metainfo(size, index)).set_gt_label(index % 2)


def _segmented(size: int, index: int) -> Any:
    from mmseg.structures import SegDataSample

    labels = torch.zeros(1, size, size, dtype=torch.long)
    labels[:, size // 4 : size // 2, index:] = 1
    return SegDataSample(metainfo=_metainfo(size, index), gt_sem_seg=PixelData(data=labels))


def _detected(size: int, index: int) -> Any:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    left, right = size // 8, size * 3 // 4
    boxes = torch.tensor([[left, left, right, right], [0, 0, size // 2, size // 2 + index]], dtype=torch.float32)
    masks = torch.zeros(2, size, size, dtype=torch.uint8)
    masks[0, left:right, left:right] = 1
    masks[1, : size // 2, : size // 2] = 1
    sample = DetDataSample(metainfo=_metainfo(size, index), ignored_instances=InstanceData(bboxes=torch.zeros(0, 4)))
    sample.gt_instances = InstanceData(
        bboxes=boxes, labels=torch.tensor([0, 1]), masks=BitmapMasks(masks.numpy(), size, size)
    )
    return sample


SAMPLES = {"mmpretrain": _classified, "mmseg": _segmented, "mmdet": _detected}


def train_once(model: torch.nn.Module, scope: str, number: int = 2, size: int = 64) -> torch.Tensor:
    """Return the loss of a batch after its backward pass."""
    loss, _ = model.parse_losses(model.train().loss(*batch(scope, number, size)))
    loss.backward()
    return loss
