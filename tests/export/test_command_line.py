"""python -m sa_layers.export, on whole models of OpenMMLab."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from sa_layers.export.__main__ import main
from tests.sampling import exhaustive

BACKBONE = """backbone = dict(
    type="sa_layers.SAN", depth=(1, 1, 1), widths=(32, 32, 64), kernel_sizes=(3, 3, 3), attention="patchwise",
    out_indices=(1, 2))
"""
CLASSIFIER = (
    BACKBONE
    + """
default_scope = "mmpretrain"
data_preprocessor = dict(num_classes=5)
model = dict(
    type="ImageClassifier", backbone=backbone, neck=dict(type="GlobalAveragePooling"),
    head=dict(type="LinearClsHead", num_classes=5, in_channels=64))
"""
)
SEGMENTOR = (
    BACKBONE
    + """
default_scope = "mmseg"
model = dict(
    type="EncoderDecoder", backbone=backbone, test_cfg=dict(mode="whole"),
    neck=dict(type="FPN", in_channels=[32, 64], out_channels=32, num_outs=2),
    decode_head=dict(
        type="FPNHead", in_channels=[32, 32], in_index=[0, 1], feature_strides=[4, 8], channels=16, num_classes=6,
        norm_cfg=dict(type="BN"), align_corners=False, loss_decode=dict(type="CrossEntropyLoss")))
"""
)
DETECTOR = (
    BACKBONE
    + """
default_scope = "mmdet"
model = dict(
    type="RetinaNet", backbone=backbone,
    neck=dict(type="FPN", in_channels=[32, 64], out_channels=32, num_outs=2),
    bbox_head=dict(
        type="RetinaHead", num_classes=5, in_channels=32, stacked_convs=1, feat_channels=32,
        anchor_generator=dict(
            type="AnchorGenerator", octave_base_scale=4, scales_per_octave=3, ratios=[1.0], strides=[4, 8]),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder")))
"""
)
SIZES = ("--threads", "1", "--sizes", "96x64", "64x128")


@pytest.mark.slow
@pytest.mark.openmmlab
@pytest.mark.parametrize(
    ("toolbox", "config", "format"),
    [
        ("mmpretrain", CLASSIFIER, "onnx"),
        ("mmseg", SEGMENTOR, "onnx"),
        ("mmdet", DETECTOR, "onnx"),
        *([("mmpretrain", CLASSIFIER, "torch-export")] if exhaustive() else []),
    ],
)
def test_whole_models(
    toolbox: str, config: str, format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole models are exported and verified."""
    pytest.importorskip(toolbox)
    if format == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    (tmp_path / "config.py").write_text(config)
    out = tmp_path / ("model.onnx" if format == "onnx" else "model.pt2")
    assert main([str(tmp_path / "config.py"), str(out), "--format", format, *SIZES]) == 0
    printed = capsys.readouterr()
    wrote, times = printed.out.splitlines()[-2:]
    assert wrote.startswith(f"wrote {out} ({format}): differs from the model by at most ")
    assert wrote.endswith(" at 96x64 and 64x128")
    runtime = "onnxruntime" if format == "onnx" else format
    assert re.fullmatch(
        rf"one image of 96x64 on 1 thread: [\d.]+ ms in {runtime}, [\d.]+ ms as a module in torch", times
    )
    steps = [line.split("s  ")[-1] for line in printed.err.splitlines() if re.match(r" *[\d.]+ s  \w+$", line)]
    assert steps == ["tracing", "translating", "writing", "verifying", "timing"]
    assert "no band graph" not in printed.err
    scopes = pytest.importorskip("mmengine.registry").DefaultScope
    assert scopes.get_current_instance() is None, "the caller's default scope has changed"


@pytest.mark.openmmlab
def test_config_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line and exit status 2, without a traceback."""
    pytest.importorskip("mmpretrain")
    config, out = tmp_path / "config.py", str(tmp_path / "model.pt2")
    arguments = [str(config), out, "--format", "torch-export"]
    assert main(arguments) == 2
    assert "config.py is not a file" in capsys.readouterr().err
    config.write_text("default_scope = 'mmengine'\nmodel = dict(type='ToyModel')\n")
    assert main(arguments) == 2
    assert "must be one of mmseg, mmpretrain, mmdet, got scope 'mmengine'" in capsys.readouterr().err
    config.write_text(CLASSIFIER)
    torch.save({"state_dict": {}}, tmp_path / "empty.pth")
    assert main([str(config), str(tmp_path / "empty.pth"), out, "--format", "torch-export"]) == 2
    assert "contains no state dict" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out.onnx"], "give either CONFIG"),
        (["--depth", "10", "out.onnx"], "give either CONFIG"),
        (["config.py", "--depth", "10", "--attention", "pairwise", "out.onnx"], "give either CONFIG"),
        (["config.py", "--checkpoint", "a.pth", "out.onnx"], "CONFIG CHECKPOINT OUT"),
        (["--depth", "11", "--attention", "pairwise", "out.onnx"], "invalid choice: 11"),
        (
            ["--depth", "10", "--attention", "pairwise", "out.onnx", "--sizes", "224", "224"],
            "must be HEIGHTxWIDTH with integers from 1 to 16384, got '224'",
        ),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_wrong_ending(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--depth", "10", "--attention", "pairwise", "--format", "torch-export", "san10.onnx"]) == 2
    assert "must end in .pt2" in capsys.readouterr().err
