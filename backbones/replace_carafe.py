"""The CARAFE of sa_layers under the name 'carafe', in configs that import this module.

A config does so by ``custom_imports = dict(imports=["sa_layers.backbones.replace_carafe"])``; see
:func:`sa_layers.backbones.carafe.replace_carafe`.
"""

from .carafe import replace_carafe

replace_carafe()
