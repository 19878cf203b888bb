"""CARAFE for OpenMMLab: on a CPU as on a GPU, and in ONNX.

Example:
    >>> from mmcv.cnn import build_upsample_layer
    >>> build_upsample_layer({"type": "sa_layers.CARAFEPack"}, channels=64, scale_factor=2).up_kernel
    5
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import Tensor

from sa_layers import layers
from sa_layers.layers.carafe import upsample
from sa_layers.registry import MODELS

if TYPE_CHECKING:
    Original: Any
else:
    try:
        # necks and heads of mmdet call init_weights only of instances of mmcv's class
        from mmcv.ops.carafe import CARAFEPack as Original
    except ImportError:  # mmcv without compiled operators
        Original = layers.CARAFEPack


@MODELS.register_module()
class CARAFEPack(Original):
    """:class:`sa_layers.layers.CARAFEPack`, as a subclass of mmcv's if mmcv has its compiled operators.

    mmdet's ``FPN_CARAFE`` and mask heads accept only the name 'carafe'; :func:`replace_carafe` registers it as such.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Upsample the features."""
        return upsample(self, features)


MODELS.register_module(name="CARAFE", module=layers.CARAFE)


def replace_carafe() -> None:
    """Let 'carafe' in configs mean :class:`CARAFEPack` instead of mmcv's layer, in the whole process.

    Configs do it by ``custom_imports = dict(imports=['sa_layers.backbones.replace_carafe'])``.

    Example:
        >>> from mmcv.cnn import build_upsample_layer
        >>> replace_carafe()
        >>> type(build_upsample_layer({"type": "carafe"}, channels=64, scale_factor=2)).__module__
        'sa_layers.backbones.carafe'
    """
    MMENGINE_MODELS.register_module(name="carafe", module=CARAFEPack, force=True)
