"""The names by which configs find the backbones, in processes that have not imported sa_layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RunPrograms

from .toolboxes import modules

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


CUSTOM_IMPORTS = """
from mmengine import Config
from mmengine.registry import MODELS, init_default_scope

config = Config.fromfile({path!r})
init_default_scope('mmseg')
print('built:', type(MODELS.build(config.backbone)).__module__)
"""


def test_names(tmp_path: Path, run_programs: RunPrograms) -> None:
    """With the scope's prefix nothing needs to be imported; without it, the package must have been.

    ``custom_imports``, as most OpenMMLab projects use them, work too, with the bare name.
    """
    for scope in TOOLBOXES:
        pytest.importorskip(scope)
    path = tmp_path / "config.py"
    path.write_text(
        "custom_imports = dict(imports=['sa_layers.backbones'], allow_failed_imports=False)\n"
        "backbone = dict(type='SAN', depth=10, attention='patchwise')\n"
    )
    programs = {scope: LOOKUP.format(scope=scope) for scope in TOOLBOXES}
    printed = run_programs(
        programs | {"custom imports": CUSTOM_IMPORTS.format(path=str(path))}, imported=modules(*TOOLBOXES)
    )
    assert "built: sa_layers.backbones.san" in printed["custom imports"]
    for scope in TOOLBOXES:
        lines = dict(line.split(": ", 1) for line in printed[scope].splitlines() if ": " in line)
        assert lines["bare name"].startswith("KeyError: SAN is not in the")
        assert lines["imported before"] == "False"
        assert lines["scoped name"] == lines["scoped long name"] == "sa_layers.backbones.san"
        assert lines["other scope active"] == scope
        assert lines["bare name afterwards"] == lines["bare long name afterwards"] == "sa_layers.backbones.san"
        assert lines["unknown name"].startswith("KeyError: sa_layers.SUN is not in the")
