"""Segmentation on CamVid and detection on BCCD: what is trained, with which config, and which metric counts."""

from __future__ import annotations

from dataclasses import dataclass

NETWORKS = ("san10-patchwise", "resnet26")


@dataclass(frozen=True)
class Task:
    """A task: its toolbox, its configs and its metric.

    Attributes:
        title: Heading on the page.
        description: What the page says of it.
        toolbox: Toolbox whose tools train and test.
        config: Config below mm_configs, with a placeholder for the network.
        metric: Name of the metric in the ledger, where it is in percent.
        written_as: Its name in the output of ``tools/test.py``.
        factor: Factor from that output to percent.
    """

    title: str
    description: str
    toolbox: str
    config: str
    metric: str
    written_as: str
    factor: float


TASKS = {
    "camvid": Task(
        title="CamVid",
        description="Segmentation of street scenes in 11 classes, at 240 x 180: 367 training and 233 test images.",
        toolbox="mmseg",
        config="segmentation/{}_fpn_1xb4-1k_camvid-240x180.py",
        metric="mIoU",
        written_as="mIoU",
        factor=1.0,
    ),
    "bccd": Task(
        title="BCCD",
        description="Detection of three kinds of blood cells, at 320 x 240: 205 training images and 159 test images, "
        "which are the splits val (87) and test (72) of the original.",
        toolbox="mmdet",
        config="detection/atss_{}_fpn_1xb4-10e_bccd-320x240.py",
        metric="mAP50",
        written_as="pascal_voc/mAP",
        factor=100.0,
    ),
}
