"""What is built and where it is installed: each once, without a network, far from the source tree.

The third-party packages of an environment are links to those of the running one; no sa_layers is among them.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import pytest

OPENMMLAB = ("mmengine", "mmcv", "mmdet", "mmseg", "mmpretrain", "onedl_")
OFFLINE = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")


@dataclass(frozen=True)
class Environment:
    """A virtual environment and a folder of nobody's to work in."""

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
        """Runs its Python outside the source tree; stderr is appended to stdout."""
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


@pytest.fixture(scope="session")
def make_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Environment]:
    """Makes an environment that borrows the running one's packages, but for those whose names begin as given."""

    def make(name: str, without: Sequence[str] = ()) -> Environment:
        root = tmp_path_factory.mktemp(name) / "environment"
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

    return make


@pytest.fixture(scope="session")
def copy_source(repository: Path) -> Callable[[Path], Path]:
    """Copies what git knows, or would add, of the source tree: no build leftovers."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=repository,
        text=True,
        capture_output=True,
        check=False,
    )
    if listing.returncode:
        pytest.skip(f"needs a git checkout: {listing.stderr.strip()}")

    def copy(target: Path) -> Path:
        for name in listing.stdout.split("\0"):
            if name and (repository / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(repository / name, target / name)
        return target

    return copy


@pytest.fixture(scope="session")
def builder(make_environment: Callable[..., Environment]) -> Environment:
    """The environment in which wheels are built."""
    return make_environment("builder")


@pytest.fixture(scope="session")
def source(copy_source: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree; do not change it."""
    return copy_source(tmp_path_factory.mktemp("source") / "sa-layers")


@pytest.fixture(scope="session")
def sdist(builder: Environment, copy_source: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    code = f"""
import os
from setuptools import build_meta
os.chdir({str(copy_source(folder / "sa-layers"))!r})
build_meta.build_sdist({str(folder)!r})
"""
    builder.run(code)
    (path,) = folder.glob("*.tar.gz")
    return path


@pytest.fixture(scope="session")
def compiling(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Variables for a build with the CPU kernels, each file of which is compiled once and kept for the next session."""
    compiler = shlex.split(os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++")[0]
    assert request.config.cache is not None
    cache, begin = request.config.cache.mkdir("compiled"), time.time()
    wrapper = tmp_path_factory.mktemp("compiler") / "c++"
    command = [sys.executable, Path(__file__).with_name("caching_compiler.py"), compiler, cache]
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, command))} "$@"\n')
    wrapper.chmod(0o755)
    yield {"CXX": str(wrapper), "SA_LAYERS_KERNELS": "required", "SA_LAYERS_CUDA": "off"}
    for path in cache.iterdir():
        if path.stat().st_mtime < begin - 60:
            path.unlink()


def wheel_of(builder: Environment, source: Path, folder: Path, **variables: str) -> Path:
    """Builds a wheel from a folder or an sdist."""
    builder.pip("wheel", "--wheel-dir", folder, source, **variables)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def wheel(
    builder: Environment, sdist: Path, compiling: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The wheel with kernels, built from the sdist as `pip install sa-layers` does."""
    return wheel_of(builder, sdist, tmp_path_factory.mktemp("wheel"), **compiling)


@pytest.fixture(scope="session")
def plain_wheel(builder: Environment, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel without kernels, built from the source tree where there is no compiler."""
    return wheel_of(builder, source, tmp_path_factory.mktemp("plain_wheel"), CXX="/nonexistent/c++")


@pytest.fixture(scope="session")
def installed_wheel(make_environment: Callable[..., Environment], wheel: Path) -> Environment:
    """An environment with the wheel."""
    environment = make_environment("installed_wheel")
    environment.pip("install", wheel)
    return environment


@pytest.fixture(scope="session")
def installed_editable(
    make_environment: Callable[..., Environment], copy_source: Callable[[Path], Path], compiling: dict[str, str]
) -> Environment:
    """An environment with an editable install of a source tree of its own."""
    environment = make_environment("installed_editable")
    environment.pip("install", "--editable", copy_source(environment.root / "sa-layers"), **compiling)
    return environment


@pytest.fixture(scope="session")
def installed_plain(make_environment: Callable[..., Environment], plain_wheel: Path) -> Environment:
    """An environment with the wheel without kernels, and without OpenMMLab and the optional packages."""
    optional = ("numba", "llvmlite", "cv2", "opencv", "skimage", "scikit_image", "rich", "torchvision", "scipy")
    environment = make_environment("installed_plain", without=(*OPENMMLAB, *optional))
    environment.pip("install", plain_wheel)
    return environment


def names_in(wheel: Path) -> set[str]:
    """The files of a wheel, but for its metadata."""
    with ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def build_info(wheel: Path) -> dict[str, object]:
    """What setup.py recorded in a wheel."""
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("sa_layers/build_info.json"))
        return json.loads(archive.read(name))
