"""The installed package, from a wheel and editable, used outside the source tree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sa_layers import __version__

from .environment import Environment

pytestmark = pytest.mark.slow

LOOK = """
import importlib.metadata, importlib.util, json, pathlib, sys
import sa_layers
print('torch' in sys.modules)
package = pathlib.Path(sa_layers.__file__).parent
configs = package / '.mim' / 'configs'
found = {
    'versions': [sa_layers.__version__, importlib.metadata.version('sa-layers')],
    'package': str(package),
    'typed': (package / 'py.typed').is_file(),
    'configs': sorted(path.relative_to(configs).as_posix() for path in configs.rglob('*.py')),
    'shadowing': [name for name in ('backbones', 'mm_configs', 'csrc') if importlib.util.find_spec(name)],
}
import sa_layers.backbones
found['backbone'] = sa_layers.backbones.SAN.__module__
print(json.dumps(found))
"""

COMPUTE = """
import torch
from sa_layers.ops import aggregation, backend, extension
assert extension.is_available(), extension.why_not()
value = torch.arange(9.0).view(1, 1, 3, 3).requires_grad_()
weight = torch.full((1, 1, 9, 9), 1 / 9)
with backend('native'):
    output = aggregation(value, weight, 3)
    output.sum().backward()
print(output[0, 0, 1, 1].item(), output[0, 0, 0, 0].item(), value.grad.sum().item())
"""

REGISTRY = """
from mmengine.config import Config
from mmengine.registry import MODELS
backbone = MODELS.build(dict(type='sa_layers.SAN', depth=10, attention='patchwise'))
print(type(backbone).__module__)
"""


@pytest.fixture(params=["wheel", "editable"])
def environment(request: pytest.FixtureRequest) -> Environment:
    """Both ways to install."""
    return request.getfixturevalue(f"installed_{request.param}")


def test_package(environment: Environment, source: Path) -> None:
    """It imports without torch, with its configs and one top-level name."""
    before, found_line = environment.run(LOOK).splitlines()[-2:]
    found = json.loads(found_line)
    assert before == "False", "import sa_layers imported torch"
    assert found["versions"] == [__version__, __version__]
    assert str(environment.root) in found["package"]
    assert found["typed"]
    assert found["configs"] == sorted(
        path.relative_to(source / "mm_configs").as_posix() for path in (source / "mm_configs").rglob("*.py")
    )
    assert not found["shadowing"]
    assert found["backbone"] == "sa_layers.backbones.san"
    installed = {entry.name for entry in environment.site_packages.iterdir()}
    ours = {name for name in installed if not name.startswith(("sa_layers", "__editable__", "__pycache__", "borrowed"))}
    assert not ours


def test_kernels(environment: Environment) -> None:
    """They load, and compute a mean over a reflected border: 4 in the middle, (0 + 2*1 + 2*3 + 4*4) / 9 in a corner."""
    numbers = [float(word) for word in environment.run(COMPUTE, PYTHONWARNINGS="error").split()]
    assert numbers == pytest.approx([4, 24 / 9, 9])


def test_registry(environment: Environment) -> None:
    """mmengine finds the backbone by its scope alone."""
    assert environment.run(REGISTRY).splitlines()[-1] == "sa_layers.backbones.san"
