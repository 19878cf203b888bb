"""Reading of checkpoint files: what is found in them, what is refused, and that no code in them runs."""

from __future__ import annotations

import argparse
import datetime
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sa_layers.checkpoints import CheckpointError, load_checkpoint, read_state_dict
from sa_layers.convert import convert_checkpoint
from sa_layers.convert.__main__ import main as convert
from sa_layers.export import ExportError, make_network
from sa_layers.export.__main__ import main as export
from sa_layers.models import SelfAttentionClassifier

WEIGHTS = {"weight": torch.arange(3.0), "bias": torch.ones(1)}
AVERAGE = {"module.weight": torch.zeros(3), "n_averaged": torch.tensor(4)}


def names_of(read: dict[str, torch.Tensor]) -> list[str]:
    return list(read)


@pytest.mark.parametrize(
    ("checkpoint", "names"),
    [
        (WEIGHTS, ["weight", "bias"]),
        ({"state_dict": WEIGHTS, "epoch": 3, "args": argparse.Namespace(lr=0.1)}, ["weight", "bias"]),
        ({"model": WEIGHTS, "date": datetime.datetime(2026, 1, 1), "folder": Path("runs")}, ["weight", "bias"]),
        ({"model": {"state_dict": WEIGHTS}, "optimizer": {"state": torch.ones(2)}}, ["weight", "bias"]),
        ({"state_dict": WEIGHTS, "state_dict_ema": AVERAGE}, ["module.weight"]),
        ({"model": WEIGHTS, "model_ema": AVERAGE}, ["module.weight"]),
        ({"state_dict": WEIGHTS, "state_dict_ema": None}, ["weight", "bias"]),
        ({"state_dict": {**WEIGHTS, "_extra_state": None}}, ["weight", "bias"]),
    ],
)
def test_state_dict_is_found(checkpoint: Any, names: list[str], tmp_path: Path) -> None:
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    assert names_of(read_state_dict(tmp_path / "checkpoint.pth")) == names


def test_dictionaries_without_end(tmp_path: Path) -> None:
    checkpoint: dict[str, Any] = {}
    checkpoint["model"] = checkpoint
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    with pytest.raises(CheckpointError, match="contains no state dict"):
        read_state_dict(tmp_path / "checkpoint.pth")


def test_numbers_of_numpy_are_skipped(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    beside = {"loss": numpy.float64(0.5), "history": numpy.arange(3), "best": numpy.int64(3)}
    torch.save({"state_dict": WEIGHTS, "beside": beside}, tmp_path / "checkpoint.pth")
    assert torch.equal(read_state_dict(tmp_path / "checkpoint.pth")["weight"], WEIGHTS["weight"])


def test_files_of_the_old_format(tmp_path: Path) -> None:
    """As torch wrote them before version 1.6."""
    torch.save({"state_dict": WEIGHTS}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert names_of(read_state_dict(tmp_path / "old.pth")) == ["weight", "bias"]


def test_safetensors(tmp_path: Path) -> None:
    """By content, not by name; a damaged file is an error."""
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(WEIGHTS, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "model.pth").write_bytes((tmp_path / "model.safetensors").read_bytes())
    for name in ("model.safetensors", "model.pth"):
        read = read_state_dict(tmp_path / name)
        assert all(torch.equal(read[name], values) for name, values in WEIGHTS.items())
    os.truncate(tmp_path / "model.pth", (tmp_path / "model.pth").stat().st_size - 4)
    with pytest.raises(CheckpointError, match=r"model\.pth is not an intact checkpoint"):
        read_state_dict(tmp_path / "model.pth")


def test_safetensors_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(CheckpointError, match=r"not installed: pip install 'sa-layers\[safetensors\]'"):
        read_state_dict(tmp_path / "model.safetensors")


@pytest.mark.parametrize("content", [b"", b"<html>quota exceeded</html>", b"\x00" * 64, b"PK\x03\x04 no archive"])
def test_files_that_are_no_checkpoints(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"file\.pth is not an intact checkpoint") as caught:
        read_state_dict(tmp_path / "file.pth")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read .*none\.pth: No such file"):
        read_state_dict(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match=r"cannot read .*: Is a directory"):
        read_state_dict(tmp_path)


def test_whole_models_need_trust(tmp_path: Path) -> None:
    """Unpickling a module imports and calls what the file names."""
    torch.save(nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"such as torch\.nn\.modules\.linear\.Linear, .* use --trust"):
        read_state_dict(tmp_path / "model.pth")
    assert names_of(read_state_dict(tmp_path / "model.pth", trust=True)) == ["weight", "bias"]


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path, way: Callable[..., Any]) -> None:
        self.marker, self.way = marker, way

    def __reduce__(self) -> tuple[Any, ...]:
        if self.way is open:
            return open, (str(self.marker), "w")
        if self.way is getattr:  # which is skipped without being called
            return getattr, (Touch, "touch")
        return self.way, (f"open({str(self.marker)!r}, 'w')",)


def write_malicious(folder: Path, way: Callable[..., Any], pickled: bool) -> Path:
    """A checkpoint that would create the file 'marker'; loading it in earnest does."""
    path, checkpoint = folder / "malicious.pth", {"state_dict": WEIGHTS, "meta": Touch(folder / "marker", way)}
    if pickled:
        path.write_bytes(pickle.dumps(checkpoint, protocol=2))
    else:
        torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize("way", [open, eval, exec, os.system])
@pytest.mark.parametrize("pickled", [False, True])
def test_no_code_runs(
    way: Callable[..., Any], pickled: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through no function, class or command; only with trust."""
    path = write_malicious(tmp_path, way, pickled)
    readers: list[tuple[type[Exception], Callable[[], object]]] = [
        (CheckpointError, lambda: read_state_dict(path)),
        (CheckpointError, lambda: load_checkpoint(nn.Linear(3, 1), path)),
        (CheckpointError, lambda: convert_checkpoint(path, tmp_path / "ours.pth")),
        (ExportError, lambda: make_network(10, "pairwise", path)),
    ]
    for error, read in readers:
        with pytest.raises(error, match="--trust"):
            read()
    san = ["--depth", "10", "--attention", "pairwise", "--checkpoint", str(path), "--format", "torch-export"]
    assert convert([str(path), str(tmp_path / "ours.pth")]) != 0
    assert export([*san, str(tmp_path / "san.pt2")]) != 0
    messages = capsys.readouterr().err.splitlines()
    assert len(messages) == 2
    assert sorted(tmp_path.iterdir()) == [path]
    if way is open and not pickled:
        read_state_dict(path, trust=True)
        assert (tmp_path / "marker").exists()


@pytest.mark.openmmlab
def test_no_code_runs_in_openmmlab(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither by init_cfg of the backbone, for which mmengine alone would run it, nor by the commands for configs."""
    pytest.importorskip("mmpretrain")
    cv2 = pytest.importorskip("cv2")
    from mmengine.registry import MODELS

    from sa_layers.backbones import SAN
    from sa_layers.visualize.__main__ import main as visualize

    path = str(write_malicious(tmp_path, open, pickled=False))
    small = {"depth": (1,) * 5, "widths": (32,) * 5, "kernel_sizes": (3,) * 5}
    init_cfg = {"type": "Pretrained", "checkpoint": path}
    resnet = MODELS.build({"type": "sa_layers.ResNet", "depth": 26, "init_cfg": init_cfg})
    for backbone in (SAN(**small, init_cfg=init_cfg), resnet):
        with pytest.raises(CheckpointError, match="could execute code"):
            backbone.init_weights()
    config, image = tmp_path / "config.py", tmp_path / "image.png"
    head = {"type": "LinearClsHead", "num_classes": 5, "in_channels": 32}
    model = {"type": "ImageClassifier", "backbone": {"type": "sa_layers.SAN", **small}, "head": head}
    config.write_text(f"default_scope = 'mmpretrain'\nmodel = {model}\ndata_preprocessor = dict(num_classes=5)\n")
    cv2.imwrite(str(image), torch.zeros(64, 64, 3, dtype=torch.uint8).numpy())
    assert visualize([str(image), str(config), path, "--out", str(tmp_path / "pictures")]) != 0
    assert export([str(config), path, str(tmp_path / "model.pt2"), "--format", "torch-export"]) != 0
    assert capsys.readouterr().err.count("could execute code") == 2
    assert not (tmp_path / "marker").exists()


def test_skipped_objects_are_not_called(tmp_path: Path) -> None:
    """getattr, which mmengine's checkpoints contain, is a placeholder."""
    path = write_malicious(tmp_path, getattr, pickled=False)
    with pytest.raises(CheckpointError, match="Touch"):
        read_state_dict(path)
    torch.save({"state_dict": WEIGHTS, "meta": Attribute()}, path)
    assert names_of(read_state_dict(path)) == ["weight", "bias"]


class Attribute:
    """Pickled as an attribute of a string, whose lookup would fail."""

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, ("", "missing")


def test_load_checkpoint_of_a_wrapped_model(tmp_path: Path) -> None:
    """As DataParallel and torch.compile write it, in any order."""
    saved, loaded = (SelfAttentionClassifier((1,) * 5, widths=(32,) * 5, num_classes=3) for _ in range(2))
    for prefix in ("module.", "_orig_mod.", "module._orig_mod."):
        state = {prefix + name: values for name, values in saved.state_dict().items()}
        torch.save({"state_dict": state}, tmp_path / "wrapped.pth")
        nn.init.zeros_(loaded.head.weight)
        load_checkpoint(loaded, tmp_path / "wrapped.pth")
        assert all(torch.equal(a, b) for a, b in zip(saved.parameters(), loaded.parameters(), strict=True))
