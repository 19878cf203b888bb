"""The paper's results on ImageNet's validation set with a single crop of 224 x 224 pixels.

Source: https://github.com/hszhao/SAN, section "Performance". We have not trained these networks.
"""

from __future__ import annotations

from typing import NamedTuple


class PaperRow(NamedTuple):
    """Parameters in millions, multiply-adds in billions, top-1 and top-5 accuracy in percent."""

    parameters: float
    multiply_adds: float
    top1: float
    top5: float


PAPER = {
    "ResNet26": PaperRow(13.7, 2.4, 73.6, 91.7),
    "SAN10 pairwise": PaperRow(10.5, 2.2, 74.9, 92.1),
    "SAN10 patchwise": PaperRow(11.8, 1.9, 77.1, 93.5),
    "ResNet38": PaperRow(19.6, 3.2, 76.0, 93.0),
    "SAN15 pairwise": PaperRow(14.1, 3.0, 76.6, 93.1),
    "SAN15 patchwise": PaperRow(16.2, 2.6, 78.0, 93.9),
    "ResNet50": PaperRow(25.6, 4.1, 76.9, 93.5),
    "SAN19 pairwise": PaperRow(17.6, 3.8, 76.9, 93.4),
    "SAN19 patchwise": PaperRow(20.5, 3.3, 78.2, 93.9),
}
