"""Checkpoints: read without executing code, in every layout that SANs are saved in.

A SAN is saved under one of four sets of names: the authors' (``module.conv_in.weight``, ``fc.weight``), OpenMMLab's
(``backbone.stem.0.weight``, ``head.fc.weight``), those of :class:`~sa_layers.models.SelfAttentionClassifier`
(``network.stem.0.weight``, ``head.weight``), or the network's own (``stem.0.weight``). Each is recognised, whatever
prefix precedes it, and renamed for the model that loads it.

:func:`load_checkpoint` loads a file into a model. The networks also rename a state dict that ``load_state_dict`` or
mmengine gives them, and refuse one of another network: see :mod:`sa_layers.checkpoints.matching`.
"""

from .errors import CheckpointError, MismatchError
from .layouts import rename
from .loading import load_checkpoint
from .reading import read_state_dict

__all__ = ["CheckpointError", "MismatchError", "load_checkpoint", "read_state_dict", "rename"]
