"""BCCD for mmdet, in its original layout, Pascal VOC's. Configs call it ``sa_layers.BCCDDataset``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from mmdet.datasets import XMLDataset
from mmengine.fileio import list_from_file

from sa_layers.datasets.original import Original

ORIGINAL = Original("BCCD", "the folder BCCD of https://github.com/Shenggan/BCCD_Dataset")


class BCCDDataset(XMLDataset):
    """Blood smears with boxes around red cells, white cells and platelets.

    The two boxes of the original that have no area are left out.

    Args:
        images: Number of images that the split must have. Defaults to None, which accepts any number.
        **options: Arguments of mmdet's XMLDataset, above all ``data_root``, ``ann_file`` (the split, such as
            'ImageSets/Main/train.txt') and ``pipeline``.

    Raises:
        IncompleteDataError: A folder or a file is missing, or the number of images is not ``images``.

    Example:
        >>> BCCDDataset(data_root="data/bccd", ann_file="ImageSets/Main/train.txt", lazy_init=True).metainfo["classes"]
        ('RBC', 'WBC', 'Platelets')
    """

    METAINFO: ClassVar[dict] = {
        "classes": ("RBC", "WBC", "Platelets"),
        "palette": [(213, 94, 0), (0, 114, 178), (240, 228, 66)],
    }

    def __init__(self, images: int | None = None, **options: Any) -> None:
        self.images = images
        super().__init__(**{"data_prefix": {"sub_data_root": ""}, **options})

    def load_data_list(self) -> list[dict]:
        """List the images with their boxes, and check that all of them are there."""
        root, backend = Path(self.sub_data_root), {"backend_args": self.backend_args}
        images, annotations = root / self.img_subdir, root / self.ann_subdir
        ORIGINAL.require_folders(images, annotations, **backend)
        ORIGINAL.require_files([self.ann_file], **backend)
        names = list_from_file(self.ann_file, **backend)
        ORIGINAL.require_number(self.ann_file, len(names), self.images)
        ORIGINAL.require_files((images / f"{name}.jpg" for name in names), **backend)
        ORIGINAL.require_files((annotations / f"{name}.xml" for name in names), **backend)
        return super().load_data_list()

    def parse_data_info(self, img_info: dict) -> dict:
        """Return the annotation of an image without boxes that have no area."""
        data = super().parse_data_info(img_info)
        data["instances"] = [item for item in data["instances"] if _has_area(*item["bbox"])]
        return data


def _has_area(left: int, top: int, right: int, bottom: int) -> bool:
    return right > left and bottom > top
