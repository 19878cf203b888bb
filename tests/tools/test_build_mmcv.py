"""mmcv's operators: the precompiled header on a source tree of one file, and the fallback to pip's build."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def build_mmcv(repository: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location("build_mmcv", repository / "tools" / "build_mmcv.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler is here")
def test_header_is_precompiled_once(build_mmcv: ModuleType, tmp_path: Path) -> None:
    csrc = tmp_path / "mmcv/ops/csrc"
    for folder in ("common", "pytorch"):
        (csrc / folder).mkdir(parents=True)
    for name in build_mmcv.HEADERS:
        (csrc / "common" / name).write_text(
            "#pragma once\ninline int one() { return ONE; }\n" if "helper" in name else ""
        )
    sources = [csrc / "pytorch" / f"{name}.cpp" for name in ("first", "second")]
    times = []
    for source in sources:
        source.write_text(f'#include "pytorch_cpp_helper.hpp"\nint {source.stem}() {{ return one(); }}\n')
        made = source.with_suffix(".o")
        command = [
            "c++",
            "-DONE=1",
            f"-I{csrc / 'common'}",
            "-MMD",
            "-MF",
            f"{made}.d",
            "-c",
            str(source),
            "-o",
            str(made),
        ]
        assert build_mmcv.compile_one(tmp_path, command) == 0
        assert made.is_file()
        times.append((tmp_path / "precompiled.hpp.gch").stat().st_mtime_ns)
    assert times[0] == times[1]


def test_other_compilations_are_left_alone(build_mmcv: ModuleType, tmp_path: Path) -> None:
    assert build_mmcv.compile_one(tmp_path, ["true", "-c", str(tmp_path / "other.cpp")]) == 0
    assert build_mmcv.compile_one(tmp_path, ["false", "first.o", "-o", "library.so"]) == 1
    assert not list(tmp_path.iterdir())


def test_plain_build_where_it_fails(
    build_mmcv: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = []

    def fail(requirement: str, folder: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(build_mmcv, "version", lambda package: "2.3.6")
    monkeypatch.setattr(build_mmcv, "install", fail)
    monkeypatch.setattr(build_mmcv, "has_operators", lambda: bool(commands))
    monkeypatch.setattr(build_mmcv.subprocess, "run", lambda command, **options: commands.append(command))
    build_mmcv.main()
    (command,) = commands
    assert command[-3:] == ["--no-binary", "onedl-mmcv", "onedl-mmcv==2.3.6"]
    assert capsys.readouterr().err == ("build_mmcv: No space left on device; compiling without a precompiled header\n")
