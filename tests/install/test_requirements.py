"""The only requirement is torch, of a release that is new enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from sa_layers import __version__

from .environment import Environment

pytestmark = pytest.mark.slow


def test_torch_alone_is_enough(installed_plain: Environment) -> None:
    """Operators, layers and networks work without OpenMMLab and optional packages; the rest says what it needs."""
    code = """
import torch
import sa_layers, sa_layers.ops, sa_layers.layers
from sa_layers.models import SelfAttentionNetwork
print(SelfAttentionNetwork(10, 'patchwise').eval()(torch.zeros(1, 3, 32, 32))[0].shape)
try:
    import sa_layers.backbones
except ModuleNotFoundError as error:
    print(error.name, error)
"""
    lines = installed_plain.run(code).splitlines()
    assert "torch.Size([1, 2048, 1, 1])" in lines
    sentence = "sa_layers.backbones needs OpenMMLab, and {0} is not installed: pip install 'sa-layers[backbones]'"
    assert lines[-1] in [f"{name} {sentence.format(name)}" for name in ("mmcv", "mmengine")]


OLD_TORCH = """
import importlib
import torch
for release in ('1.13.1', '2.9.1+cu130'):
    torch.__version__ = release
    for part in ('ops', 'layers', 'models'):
        try:
            importlib.import_module('sa_layers.' + part)
        except ImportError as error:
            print(error)
import sa_layers
print(sa_layers.__version__)
"""


def test_old_torch(installed_plain: Environment) -> None:
    """Every part raises the same sentence; the version can still be read."""
    *messages, version = installed_plain.run(OLD_TORCH).splitlines()[-7:]
    sentence = "sa_layers needs torch >= 2.10, and {} is installed: pip install --upgrade torch"
    assert messages == [sentence.format(release) for release in ("1.13.1", "2.9.1+cu130") for _ in range(3)]
    assert version == __version__


NEW_TORCH = """
import importlib
import torch
from sa_layers.ops import torch_release
for release in ('2.10.0a0+git1234567', '2.10.0', '3.0.0'):
    torch.__version__ = release
    importlib.reload(torch_release)
"""


def test_new_torch(installed_plain: Environment) -> None:
    """Pre-releases of the oldest supported release, as vendors ship them, and later releases are accepted."""
    installed_plain.run(NEW_TORCH)


def test_floor_is_the_declared_one(source: Path) -> None:
    """The check at import, the build and the metadata name the same oldest release."""
    from sa_layers.ops.torch_release import TORCH_FLOOR

    floor = ".".join(map(str, TORCH_FLOOR))
    assert f'"torch>={floor}"' in (source / "pyproject.toml").read_text()
    assert f'"{floor}"' in (source / "setup.py").read_text()
