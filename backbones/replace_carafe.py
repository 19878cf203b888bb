"""Lets 'carafe' mean the CARAFE of sa_layers in a config that imports this module.

``custom_imports = dict(imports=["sa_layers.backbones.replace_carafe"])`` does; see
:func:`sa_layers.backbones.carafe.replace_carafe`.
"""

from .carafe import replace_carafe

replace_carafe()
