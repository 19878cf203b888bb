"""Where the OpenMMLab toolboxes are installed, and their tools as programs for ``run_programs``."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path


def toolbox(name: str) -> Path:
    """The tools and configs that an OpenMMLab toolbox installs."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / ".mim"


def modules(*names: str) -> list[str]:
    """What the tools of toolboxes import, which takes longer than most tests let them train."""
    parts = ("datasets", "engine", "evaluation", "models", "visualization")
    return [f"{name}.{part}" for name in names for part in parts]


def tool_program(folder: Path, name: str, tool: str, arguments: Iterable[object]) -> str:
    """A program that is ``tools/TOOL`` of a toolbox, run in a folder, and that has not imported sa_layers before."""
    command = [str(toolbox(name) / "tools" / tool), *map(str, arguments)]
    return f"""
import os, runpy, sys

assert "sa_layers" not in sys.modules
os.chdir({str(folder)!r})
sys.argv = {command!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
