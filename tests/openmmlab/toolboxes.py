"""Where the OpenMMLab toolboxes are installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def toolbox(name: str) -> Path:
    """The tools and configs that an OpenMMLab toolbox installs."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / ".mim"
