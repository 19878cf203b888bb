"""What is built and where it is installed: each once, far from the source tree."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .environment import Environment, make_environment
from .wheels import wheel_of

# left out of the environment that has torch alone
OPENMMLAB = ("mmengine", "mmcv", "mmdet", "mmseg", "mmpretrain", "onedl_")
OPTIONAL = ("numba", "llvmlite", "cv2", "opencv", "skimage", "scikit_image", "rich", "torchvision", "scipy")


@pytest.fixture(scope="session")
def source(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git knows, or would add, of the source tree: no build leftovers. Build in copies of it, not in it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=repository, text=True, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip(f"needs a git checkout: {listing.stderr.strip()}")
    root = tmp_path_factory.mktemp("source") / "sa-layers"
    for name in filter(None, listing.stdout.split("\0")):
        if (repository / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, root / name)
    return root


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The environment in which wheels are built."""
    return make_environment(tmp_path_factory.mktemp("builder") / "environment")


@pytest.fixture(scope="session")
def sdist(builder: Environment, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    tree = shutil.copytree(source, folder / "sa-layers")
    builder.run(f"""
import os
from setuptools import build_meta
os.chdir({str(tree)!r})
build_meta.build_sdist({str(folder)!r})
""")
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
def installed_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel."""
    environment = make_environment(tmp_path_factory.mktemp("installed_wheel") / "environment")
    environment.pip("install", wheel)
    return environment


@pytest.fixture(scope="session")
def installed_editable(
    source: Path, compiling: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """An environment with an editable install of a source tree of its own."""
    environment = make_environment(tmp_path_factory.mktemp("installed_editable") / "environment")
    tree = shutil.copytree(source, environment.root / "sa-layers")
    environment.pip("install", "--editable", tree, **compiling)
    return environment


@pytest.fixture(scope="session")
def installed_plain(plain_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel without kernels, and without OpenMMLab and the optional packages."""
    environment = make_environment(tmp_path_factory.mktemp("installed_plain") / "environment", (*OPENMMLAB, *OPTIONAL))
    environment.pip("install", plain_wheel)
    return environment
