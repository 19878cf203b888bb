"""The scope ``sa_layers`` in OpenMMLab's registries.

mmengine imports this module when a config says ``type='sa_layers.SAN'``, so configs need no ``custom_imports``.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import Registry

MODELS = Registry("model", parent=MMENGINE_MODELS, scope="sa_layers", locations=["sa_layers.backbones"])
HOOKS = Registry("hook", parent=MMENGINE_HOOKS, scope="sa_layers", locations=["sa_layers.visualize.hook"])
OPTIM_WRAPPERS = Registry(
    "optim_wrapper", parent=MMENGINE_OPTIM_WRAPPERS, scope="sa_layers", locations=["sa_layers.backbones"]
)
DATASETS = Registry(
    "dataset", parent=MMENGINE_DATASETS, scope="sa_layers", locations=["sa_layers.datasets.registration"]
)
