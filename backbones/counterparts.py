"""Registration of ``sa_layers.ResNet``, the convolutional counterpart of SAN, without importing mmpretrain.

:mod:`.resnet` subclasses mmpretrain's ResNet. It is imported only when such a ResNet is built, so that detectors and
segmentors with a SAN backbone do not need mmpretrain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sa_layers.registry import MODELS

if TYPE_CHECKING:
    from .resnet import ResNet


@MODELS.register_module(name="ResNet")
def build_resnet(*args: Any, **options: Any) -> ResNet:
    """Build a :class:`sa_layers.backbones.resnet.ResNet` from its arguments.

    Raises:
        ModuleNotFoundError: mmpretrain is not installed.
    """
    try:
        from .resnet import ResNet
    except ModuleNotFoundError as error:
        if error.name != "mmpretrain":
            raise
        raise ModuleNotFoundError(
            "sa_layers.ResNet needs mmpretrain, which is not installed: pip install 'sa-layers[classification]'",
            name=error.name,
        ) from error
    return ResNet(*args, **options)
