"""The name ``sa_layers.ResNet``, behind which mmpretrain is imported only when one is built.

Without this, every detector and segmentor with a SAN would import mmpretrain, or fail where it is not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sa_layers.registry import MODELS

if TYPE_CHECKING:
    from .resnet import ResNet


@MODELS.register_module(name="ResNet")
def build_resnet(*args: Any, **options: Any) -> ResNet:
    """Builds a :class:`sa_layers.backbones.resnet.ResNet`.

    Raises:
        ModuleNotFoundError: mmpretrain is not installed.
    """
    try:
        from .resnet import ResNet
    except ModuleNotFoundError as error:
        if error.name != "mmpretrain":
            raise
        raise ModuleNotFoundError(
            "sa_layers.ResNet is made of mmpretrain's, which is not installed: pip install 'sa-layers[classification]'",
            name=error.name,
        ) from error
    return ResNet(*args, **options)
