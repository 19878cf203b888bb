"""Every command that writes files: a full disk leaves nothing behind, a device or a pipe stays one."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sa_layers.benchmark.plot import Bar, Point, plot_bars, plot_roofline
from sa_layers.benchmark.report import Report
from sa_layers.convert.files import write
from sa_layers.errors import ReportedError
from sa_layers.export import export
from tests.conftest import clean_environment
from tests.test_wrong_command_lines import SEGMENTOR

resource = pytest.importorskip("resource")


def write_json(path: Path) -> None:
    report = Report("Sums", {"device": "abacus"}, [], [])
    report.rows.append({"values": list(range(20_000))})
    report.write_json(path)


def export_onnx(path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    export(nn.Conv2d(3, 4000, 3, padding=1), path, "onnx", stride=4)


def export_torch(path: Path) -> None:
    export(nn.Conv2d(3, 4000, 3, padding=1), path, "torch-export", stride=4)


def draw_bars(path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot_bars(path, "Times", [Bar("panel", f"network {number}", 0.1) for number in range(40)])


def draw_roofline(path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot_roofline(path, "Roof", [Point("ours", "forward", 1.0, 1e9)], 1e10, 1e11)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "checkpoint.pth": lambda path: write({"state_dict": {"weight": torch.zeros(100_000)}}, path),
    "results.json": write_json,
    "program.onnx": export_onnx,
    "program.pt2": export_torch,
    "bars.png": draw_bars,
    "roofline.svg": draw_roofline,
}


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    """Writing beyond ``size`` bytes fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("old", [None, b"precious"], ids=["new", "replaced"])
@pytest.mark.parametrize("name", WRITERS)
def test_full_disk(name: str, old: bytes | None, tmp_path: Path) -> None:
    """One sentence, and what was there before."""
    path = tmp_path / "results" / name
    path.parent.mkdir()
    if old is not None:
        path.write_bytes(old)
    with limited_files(3000), pytest.raises(ReportedError) as caught:
        WRITERS[name](path)
    assert str(caught.value).startswith(f"cannot write {path}: ")
    assert "\n" not in str(caught.value)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == ({} if old is None else {name: old})


@pytest.mark.openmmlab
def test_full_disk_for_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of ``visualize``; a limit for all files would also be one for the log of mmengine."""
    pytest.importorskip("matplotlib")
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("mmseg")
    from sa_layers.visualize.__main__ import main

    (tmp_path / "config.py").write_text(SEGMENTOR)
    cv2.imwrite(str(tmp_path / "image.png"), 255 * np.eye(32, dtype=np.uint8))
    monkeypatch.setattr(Path, "write_bytes", write_half)
    before = sorted(tmp_path.rglob("*"))
    assert main([str(tmp_path / "image.png"), str(tmp_path / "config.py"), "--out", str(tmp_path)]) == 1
    assert sorted(tmp_path.rglob("*")) == before


def write_half(path: Path, content: bytes) -> int:
    """Stands for ``Path.write_bytes``."""
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("name", ["checkpoint.pth", "results.json", "bars.png"])
def test_pipe(name: str, tmp_path: Path) -> None:
    """The reader gets what a file would contain."""
    pipe = tmp_path / name
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    WRITERS[name](pipe)
    reader.join(10)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    starts = {"checkpoint.pth": b"PK", "results.json": b"{", "bars.png": b"\x89PNG"}
    assert received[0].startswith(starts[name])


@pytest.mark.parametrize("name", ["program.onnx", "program.pt2"])
def test_programs_are_not_written_to_pipes(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ReportedError, match="it is not a file, so the program could not be verified"):
        WRITERS[name](tmp_path / name)
    assert stat.S_ISFIFO((tmp_path / name).stat().st_mode)


@pytest.mark.parametrize("name", ["checkpoint.pth", "results.json", "bars.png"])
def test_null_device(name: str) -> None:
    before = os.stat("/dev/null")
    WRITERS[name](Path("/dev/null"))
    assert os.stat("/dev/null").st_rdev == before.st_rdev
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_standard_output(tmp_path: Path) -> None:
    """``--json /dev/stdout`` with the output redirected to a file: the tables, then the JSON."""
    pytest.importorskip("torchvision")
    command = [sys.executable, "-m", "sa_layers.benchmark", "attentions", "--quick", "--attention", "patchwise"]
    with (tmp_path / "out.txt").open("w") as out:
        subprocess.run(
            [*command, "--threads", "1", "--device", "cpu", "--json", "/dev/stdout"],
            stdout=out,
            check=True,
            cwd=tmp_path,
            env=clean_environment(),
        )
    tables, brace, content = (tmp_path / "out.txt").read_text().partition("{\n")
    assert "patchwise" in tables
    assert json.loads(brace + content)["title"] == "Whole attentions"
