"""Registration of the data sets for OpenMMLab, without importing a toolbox that the config does not use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sa_layers.extras import importing
from sa_layers.registry import DATASETS

if TYPE_CHECKING:
    from sa_layers.datasets.bccd import BCCDDataset
    from sa_layers.datasets.camvid import CamVidDataset


@DATASETS.register_module(name="CamVidDataset")
def build_camvid(**options: Any) -> CamVidDataset:
    """Build a :class:`sa_layers.datasets.camvid.CamVidDataset`, which needs mmseg.

    Raises:
        MissingPackageError: mmseg is not installed.
    """
    with importing("segmentation"):
        from sa_layers.datasets.camvid import CamVidDataset
    return CamVidDataset(**options)


@DATASETS.register_module(name="BCCDDataset")
def build_bccd(**options: Any) -> BCCDDataset:
    """Build a :class:`sa_layers.datasets.bccd.BCCDDataset`, which needs mmdet.

    Raises:
        MissingPackageError: mmdet is not installed.
    """
    with importing("detection"):
        from sa_layers.datasets.bccd import BCCDDataset
    return BCCDDataset(**options)
