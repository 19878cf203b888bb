"""What is built and where it is installed: each once, far from the source tree."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MakeOnce

from .environment import Environment, make_environment
from .wheels import wheel_of

# left out of the environment that has torch alone
OPENMMLAB = ("mmengine", "mmcv", "mmdet", "mmseg", "mmpretrain", "onedl_")
OPTIONAL = ("numba", "llvmlite", "cv2", "opencv", "skimage", "scikit_image", "rich", "torchvision", "scipy")


@pytest.fixture(scope="session")
def source(repository: Path, make_once: MakeOnce) -> Path:
    """The source tree as git knows it, new files included: no build leftovers. Build in copies of it, not in it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=repository, text=True, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip(f"needs a git checkout: {listing.stderr.strip()}")

    def copy(folder: Path) -> None:
        for name in filter(None, listing.stdout.split("\0")):
            if (repository / name).is_file():
                target = folder / "sa-layers" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(repository / name, target)

    return make_once("source", copy) / "sa-layers"


@pytest.fixture(scope="session")
def builder(make_once: MakeOnce) -> Environment:
    """The environment in which wheels are built."""
    return Environment(make_once("builder", make_environment))


@pytest.fixture(scope="session")
def sdist(builder: Environment, source: Path, make_once: MakeOnce) -> Path:
    """The source distribution."""

    def build(folder: Path) -> None:
        tree = shutil.copytree(source, folder / "sa-layers")
        code = "import os, sys\nfrom setuptools import build_meta\nos.chdir(sys.argv[1])\n"
        builder.call("-c", f"{code}build_meta.build_sdist(sys.argv[2])", tree, folder)

    (path,) = make_once("sdist", build).glob("*.tar.gz")
    return path


@pytest.fixture(scope="session")
def compiling(request: pytest.FixtureRequest, repository: Path) -> dict[str, str]:
    """Variables for a build with the CPU kernels; ``make`` and earlier sessions left their objects in the cache."""
    assert request.config.cache is not None
    cache = request.config.cache.mkdir("compiled")
    command = [sys.executable, repository / "tools" / "caching_compiler.py", cache, cache.parent / "c++"]
    compiler = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return {"CXX": compiler, "SA_LAYERS_KERNELS": "required", "SA_LAYERS_CUDA": "off"}


@pytest.fixture(scope="session")
def wheel(builder: Environment, sdist: Path, compiling: dict[str, str], make_once: MakeOnce) -> Path:
    """The wheel with kernels, built from the sdist as `pip install sa-layers` does."""
    return the_wheel_in(make_once("wheel", lambda folder: wheel_of(builder, sdist, folder, **compiling)))


@pytest.fixture(scope="session")
def plain_wheel(builder: Environment, source: Path, make_once: MakeOnce) -> Path:
    """The wheel without kernels, built from the source tree where there is no compiler."""
    return the_wheel_in(
        make_once("plain_wheel", lambda folder: wheel_of(builder, source, folder, CXX="/nonexistent/c++"))
    )


def the_wheel_in(folder: Path) -> Path:
    """The one wheel in a folder."""
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installed_wheel(wheel: Path, make_once: MakeOnce) -> Environment:
    """An environment with the wheel."""
    return Environment(make_once("installed_wheel", lambda root: make_environment(root).pip("install", wheel)))


@pytest.fixture(scope="session")
def installed_editable(source: Path, compiling: dict[str, str], make_once: MakeOnce) -> Environment:
    """An environment with an editable install of a source tree of its own."""

    def install(root: Path) -> None:
        tree = shutil.copytree(source, root / "sa-layers")
        make_environment(root).pip("install", "--editable", tree, **compiling)

    return Environment(make_once("installed_editable", install))


@pytest.fixture(scope="session")
def installed_plain(plain_wheel: Path, make_once: MakeOnce) -> Environment:
    """An environment with the wheel without kernels, and without OpenMMLab and the optional packages."""

    def install(root: Path) -> None:
        make_environment(root, (*OPENMMLAB, *OPTIONAL)).pip("install", plain_wheel)

    return Environment(make_once("installed_plain", install))
