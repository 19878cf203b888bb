"""The SAN backbones for OpenMMLab; installed as sa_layers.backbones."""

try:
    from . import carafe, counterparts, layers
    from .model_hub import register_models
    from .optim_wrapper import AutocastOptimWrapper
    from .plugin import SelfAttentionPlugin
    from .san import SAN
except ModuleNotFoundError as error:
    if error.name not in ("mmengine", "mmcv"):
        raise
    raise ModuleNotFoundError(
        f"sa_layers.backbones needs OpenMMLab, and {error.name} is not installed: pip install 'sa-layers[backbones]'",
        name=error.name,
    ) from error

__all__ = ["SAN", "AutocastOptimWrapper", "SelfAttentionPlugin", "carafe", "counterparts", "layers", "register_models"]
