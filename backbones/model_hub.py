"""Our classifiers by name in mmpretrain: ``mmpretrain.get_model('san10-pairwise_8xb32-coslr-100e_in1k')``."""

from __future__ import annotations

from pathlib import Path

import sa_layers


def register_models() -> list[str]:
    """Adds the classifiers of our model index to mmpretrain's model hub; a second call changes nothing.

    mmpretrain looks for names in its hub alone and has no hook for other packages, so this must be called once, before
    or after mmpretrain is imported; the call imports it.

    Returns:
        The names, each of which ``get_model``, ``list_models`` and the inferencers of mmpretrain then know.

    Raises:
        ModuleNotFoundError: mmpretrain is not installed.
        FileNotFoundError: sa_layers is used from a source tree that was never installed.

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
        raise FileNotFoundError(f"{index} is written when sa_layers is installed: pip install [--editable] .")
    names = [model.name for model in load(str(index)).models]
    if not all(ModelHub.has(name) for name in names):
        ModelHub.register_model_index(index, config_prefix=index.parent)
    return names
