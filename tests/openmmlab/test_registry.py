"""Lookup of the backbones by name, in processes that have not imported sa_layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

TOOLBOXES = ("mmdet", "mmpretrain", "mmseg")

pytestmark = pytest.mark.openmmlab

LOOKUP = """
import sys
from mmengine.registry import MODELS, init_default_scope

init_default_scope({scope!r})
small = dict(depth=(1, 1, 1, 1, 1), widths=(32, 32, 32, 32, 32), kernel_sizes=(3, 3, 3, 3, 3))


def builds(name):
    try:
        return type(MODELS.build(dict(type=name, **small))).__module__
    except KeyError as error:
        return 'KeyError: ' + error.args[0]


print('bare name:', builds('SAN'))
print('imported before:', 'sa_layers' in sys.modules)
print('scoped name:', builds('sa_layers.SAN'))
print('scoped long name:', builds('sa_layers.SelfAttentionNetwork'))
print('other scope active:', MODELS.switch_scope_and_registry(None).__enter__().scope)
print('bare name afterwards:', builds('SAN'))
print('bare long name afterwards:', builds('SelfAttentionNetwork'))
print('unknown name:', builds('sa_layers.SUN'))
"""


@pytest.mark.parametrize("scope", TOOLBOXES)
def test_names(scope: str, run_python: Callable[..., CompletedProcess[str]]) -> None:
    """The name with the scope prefix needs no import. The bare name requires the package to be imported."""
    pytest.importorskip(scope)
    output = run_python(LOOKUP.format(scope=scope)).stdout
    lines = dict(line.split(": ", 1) for line in output.splitlines() if ": " in line)
    assert lines["bare name"].startswith("KeyError: SAN is not in the")
    assert lines["imported before"] == "False"
    assert lines["scoped name"] == lines["scoped long name"] == "sa_layers.backbones.san"
    assert lines["other scope active"] == scope
    assert lines["bare name afterwards"] == lines["bare long name afterwards"] == "sa_layers.backbones.san"
    assert lines["unknown name"].startswith("KeyError: sa_layers.SUN is not in the")


CUSTOM_IMPORTS = """
from mmengine import Config
from mmengine.registry import MODELS, init_default_scope

config = Config.fromfile({path!r})
init_default_scope('mmseg')
print('built:', type(MODELS.build(config.backbone)).__module__)
"""


def test_custom_imports(tmp_path: Path, run_python: Callable[..., CompletedProcess[str]]) -> None:
    """The bare name works with custom_imports."""
    pytest.importorskip("mmseg")
    path = tmp_path / "config.py"
    path.write_text(
        "custom_imports = dict(imports=['sa_layers.backbones'], allow_failed_imports=False)\n"
        "backbone = dict(type='SAN', depth=10, attention='patchwise')\n"
    )
    assert "built: sa_layers.backbones.san" in run_python(CUSTOM_IMPORTS.format(path=str(path))).stdout
