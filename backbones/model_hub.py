"""SAN classifiers in mmpretrain's model hub: ``mmpretrain.get_model('san10-pairwise_8xb32-coslr-100e_in1k')``."""

from __future__ import annotations

from pathlib import Path

import sa_layers


def register_models() -> list[str]:
    """Add the SAN classifiers to mmpretrain's model hub. Calling it again has no effect.

    mmpretrain has no entry point through which other packages could add models, so call this function once before you
    use a name. It imports mmpretrain.

    Returns:
        The model names, which ``get_model``, ``list_models`` and the inferencers of mmpretrain now accept.

    Raises:
        ModuleNotFoundError: If mmpretrain is not installed.
        FileNotFoundError: If sa_layers is used from a source tree and was never installed.

    Example:
        >>> import mmpretrain
        >>> names = register_models()
        >>> mmpretrain.list_models("san10-pairwise_8xb32-coslr")
        ['san10-pairwise_8xb32-coslr-100e_in1k']
    """
    from mmpretrain.apis.model import ModelHub
    from modelindex.load_model_index import load

    index = Path(sa_layers.__file__).parent / ".mim" / "model-index.yml"
    if not index.is_file():
        raise FileNotFoundError(f"{index} is missing; installing sa_layers creates it: pip install [--editable] .")
    names = [model.name for model in load(str(index)).models]
    if not all(ModelHub.has(name) for name in names):
        ModelHub.register_model_index(index, config_prefix=index.parent)
    return names
