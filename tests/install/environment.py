"""Virtual environments to install into, made within a second and without a network.

The third-party packages of an environment are links to those of the running one, without sa_layers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

OFFLINE = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and a working directory outside any source tree."""

    root: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.root / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        """Where pip installs."""
        (folder,) = (self.root / "lib").glob("python3*/site-packages")
        return folder

    def call(self, *arguments: object, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs its Python outside the source tree; stderr is part of stdout."""
        outside = self.root / "elsewhere"
        outside.mkdir(exist_ok=True)
        ours = ("SA_LAYERS_", "PYTHON", "CXX", "PIP_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        command = [str(self.python), *map(str, arguments)]
        process = subprocess.run(
            command, cwd=outside, env=environment | variables, text=True, stdout=-1, stderr=-2, check=False
        )
        if check and process.returncode:
            pytest.fail(f"{' '.join(command)}\nexit code {process.returncode}\n{process.stdout[-6000:]}")
        return process

    def run(self, code: str, **variables: str) -> str:
        """What the code prints."""
        return self.call("-c", code, **variables).stdout

    def pip(self, command: str, *arguments: object, check: bool = True, **variables: str) -> str:
        """Runs pip without a network."""
        return self.call("-m", "pip", command, *OFFLINE, *arguments, check=check, **variables).stdout


def make_environment(root: Path, without: Sequence[str] = ()) -> Environment:
    """Makes an environment with the packages of the running one except those whose names begin with ``without``."""
    venv.create(root, with_pip=False, symlinks=True)
    environment, borrowed = Environment(root), root / "borrowed"
    borrowed.mkdir()
    left_out = ("sa_layers", "__editable__", "__pycache__", *without)
    for folder in (Path(entry) for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))):
        for entry in folder.iterdir():
            if not entry.name.startswith(left_out) and not (borrowed / entry.name).exists():
                (borrowed / entry.name).symlink_to(entry, target_is_directory=entry.is_dir())
    (environment.site_packages / "borrowed.pth").write_text(f"{borrowed}\n")
    return environment
