"""Installation without compiled kernels: everything works, and a warning says why it is slow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .environment import Environment
from .wheels import build_info, names_in, wheel_of

pytestmark = pytest.mark.slow

COMPUTE = """
import json, warnings
import torch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    from sa_layers.layers import PairwiseSelfAttention
    from sa_layers.ops import aggregation
    value, weight = torch.arange(9.0).view(1, 1, 3, 3), torch.full((1, 1, 9, 9), 1 / 9)
    numbers = [aggregation(value, weight, 3)[0, 0, 1, 1].item() for _ in range(2)]
    PairwiseSelfAttention(8, 8, 3)(torch.randn(1, 8, 4, 4)).sum().backward()
messages = [str(item.message) for item in caught if 'sa_layers' in str(item.message)]
print(json.dumps([numbers, messages]))
"""


def compute(environment: Environment, **variables: str) -> tuple[list[float], list[str]]:
    """Two results and the warnings of sa_layers."""
    numbers, messages = json.loads(environment.run(COMPUTE, **variables).splitlines()[-1])
    return numbers, messages


def test_without_a_compiler(installed_plain: Environment) -> None:
    """Results are right; the first operator warns once, with the reason and the remedy."""
    numbers, messages = compute(installed_plain)
    assert numbers == [4.0, 4.0]
    assert len(messages) == 1
    for fragment in ("plain torch", "slower", "no C++ compiler was found ('/nonexistent/c++')", "pip install"):
        assert fragment in messages[0]
    assert "\n" not in messages[0]


def test_switched_off_at_run_time(installed_wheel: Environment) -> None:
    """SA_LAYERS_KERNELS=off disables installed kernels."""
    numbers, messages = compute(installed_wheel, SA_LAYERS_KERNELS="off")
    assert numbers == [4.0, 4.0]
    assert len(messages) == 1
    assert "SA_LAYERS_KERNELS=off" in messages[0]


def test_asking_for_torch_does_not_warn(installed_plain: Environment) -> None:
    """The backend 'torch' was chosen on purpose."""
    assert compute(installed_plain, SA_LAYERS_BACKEND="torch") == ([4.0, 4.0], [])


def test_asking_for_native_fails(installed_plain: Environment) -> None:
    """The backend 'native' raises an error instead of falling back."""
    code = "import torch\nfrom sa_layers.ops import aggregation\n"
    code += "aggregation(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 9, 9), 3)"
    process = installed_plain.call("-c", code, check=False, SA_LAYERS_BACKEND="native")
    assert process.returncode
    last = process.stdout.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: backend 'native' cannot be used: ")
    assert "no C++ compiler was found" in last


def test_switched_off_at_install(builder: Environment, source: Path, tmp_path: Path) -> None:
    """SA_LAYERS_KERNELS=off compiles nothing and records it."""
    wheel = wheel_of(builder, source, tmp_path, SA_LAYERS_KERNELS="off")
    assert not any(name.endswith(".so") for name in names_in(wheel))
    info = build_info(wheel)
    assert info["kernels"] is False
    assert "SA_LAYERS_KERNELS=off" in str(info["reason"])


def test_compilation_that_fails(builder: Environment, source: Path, tmp_path: Path) -> None:
    """If the compiler fails, the package is installed without kernels."""
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'fatal error: no space left on device' >&2\nexit 1\n")
    compiler.chmod(0o755)
    (tmp_path / "wheel").mkdir()
    wheel = wheel_of(builder, source, tmp_path / "wheel", CXX=str(compiler))
    assert not any(name.endswith(".so") for name in names_in(wheel))
    assert "compiling them failed" in str(build_info(wheel)["reason"])


def test_required_without_a_compiler(builder: Environment, source: Path, tmp_path: Path) -> None:
    """SA_LAYERS_KERNELS=required fails with one sentence when there is no compiler."""
    variables = {"SA_LAYERS_KERNELS": "required", "PATH": str(builder.root / "bin")}
    printed = builder.pip("wheel", "--wheel-dir", tmp_path, source, check=False, **variables)
    (line,) = {line.strip() for line in printed.splitlines() if "SA_LAYERS_KERNELS=required" in line}
    assert line.startswith("sa_layers: SA_LAYERS_KERNELS=required, but no C++ compiler was found (")
    assert not list(tmp_path.glob("*.whl"))


def test_unknown_setting(builder: Environment, source: Path, tmp_path: Path) -> None:
    """Unknown values are refused."""
    printed = builder.pip("wheel", "--wheel-dir", tmp_path, source, check=False, SA_LAYERS_KERNELS="on")
    assert "SA_LAYERS_KERNELS must be 'auto', 'required' or 'off', got 'on'" in printed
    assert not list(tmp_path.glob("*.whl"))
