"""Building and inspecting wheels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from zipfile import ZipFile

from .environment import Environment


def wheel_of(builder: Environment, source: Path, folder: Path, **variables: str) -> Path:
    """Builds a wheel in ``folder`` from a source tree or an sdist."""
    if source.is_dir():
        source = shutil.copytree(source, folder / "sa-layers")
    builder.pip("wheel", "--wheel-dir", folder, source, **{"SA_LAYERS_CUDA": "off"} | variables)
    (path,) = folder.glob("*.whl")
    return path


def names_in(wheel: Path) -> set[str]:
    """The files of a wheel except its metadata."""
    with ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def build_info(wheel: Path) -> dict[str, object]:
    """What setup.py recorded in a wheel."""
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("sa_layers/build_info.json"))
        return json.loads(archive.read(name))
