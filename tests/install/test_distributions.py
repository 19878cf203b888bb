"""What the sdist and the wheels hold."""

from __future__ import annotations

import tarfile
from email import message_from_string
from pathlib import Path
from zipfile import ZipFile

import pytest

from sa_layers import __version__

from .wheels import names_in

pytestmark = pytest.mark.slow


def test_sdist_holds_the_sources(sdist: Path, source: Path) -> None:
    """Everything that git knows, and nothing that was built."""
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    tracked = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    wanted = {name for name in tracked if not name.startswith(".")}
    assert wanted <= names, sorted(wanted - names)
    assert not [name for name in names if name.endswith((".so", ".pyc", "build_info.json"))]
    assert sdist.name == f"sa_layers-{__version__}.tar.gz"


def test_wheel_has_one_top_level_module(wheel: Path, plain_wheel: Path) -> None:
    """A top-level module named backbones or tests would clash with those of many repositories."""
    for path in (wheel, plain_wheel):
        assert {name.split("/")[0] for name in names_in(path)} == {"sa_layers"}
        with ZipFile(path) as archive:
            (top_level,) = (name for name in archive.namelist() if name.endswith("top_level.txt"))
            assert archive.read(top_level).decode().split() == ["sa_layers"]


def test_wheel_holds_the_package(wheel: Path, source: Path) -> None:
    """Every module, configs and model index where mim looks for them, the kernels and their sources, py.typed."""
    names = names_in(wheel)
    modules = {path.relative_to(source).as_posix() for path in (source / "sa_layers").rglob("*.py")}
    backbones = {f"sa_layers/backbones/{path.name}" for path in (source / "backbones").glob("*.py")}
    configs = {
        f"sa_layers/.mim/configs/{path.relative_to(source / 'mm_configs').as_posix()}"
        for path in (source / "mm_configs").rglob("*")
        if path.is_file()
    }
    assert len(configs) >= 3
    others = {"sa_layers/.mim/model-index.yml", "sa_layers/py.typed"}
    others |= {f"sa_layers/visualize/page/page.{suffix}" for suffix in ("html", "js")}
    built = {"sa_layers/kernels.so", "sa_layers/build_info.json"}
    headers_and_sources = {
        f"sa_layers/.csrc/{path.relative_to(source / 'csrc').as_posix()}"
        for folder in (".", "cpu", "operands", "runtimes")
        for path in (source / "csrc" / folder).glob("*.h" if folder == "." else "**/*.*")
    }
    assert "sa_layers/.csrc/runtimes/torch/csrc/stable/tensor.h" in headers_and_sources
    assert names == modules | backbones | configs | others | built | headers_and_sources


def test_sdist_and_source_tree_give_the_same_wheel(wheel: Path, plain_wheel: Path) -> None:
    """Except for the kernels: the first is built from the sdist with them, the second from the tree without."""
    assert names_in(wheel) - names_in(plain_wheel) == {"sa_layers/kernels.so"}
    assert names_in(plain_wheel) <= names_in(wheel)
    with ZipFile(wheel) as first, ZipFile(plain_wheel) as second:
        for name in names_in(plain_wheel) - {"sa_layers/build_info.json"}:
            assert first.read(name) == second.read(name), name


def test_tags(wheel: Path, plain_wheel: Path) -> None:
    """One wheel serves every Python; only the kernels tie it to a platform."""
    assert wheel.name.startswith(f"sa_layers-{__version__}-py3-none-linux_")
    assert plain_wheel.name == f"sa_layers-{__version__}-py3-none-any.whl"


def test_metadata(wheel: Path) -> None:
    """torch is the only requirement; everything else is an extra."""
    with ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = message_from_string(archive.read(path).decode())
    assert metadata["Version"] == __version__
    required = [value for value in metadata.get_all("Requires-Dist", []) if "extra ==" not in value]
    assert [value.replace(" ", "") for value in required] == ["torch>=2.10"]
    assert {"backbones", "segmentation", "classification", "detection"} <= set(metadata.get_all("Provides-Extra", []))
