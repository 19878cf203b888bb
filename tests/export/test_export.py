"""Exported programs return the same results as the models, at image and batch sizes other than the exported ones.

Options of attentions in ONNX are in test_band_graphs.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sa_layers.export import FORMATS, ExportError, export, load, make_network, verify
from sa_layers.layers import PatchwiseSelfAttention
from sa_layers.models import SelfAttentionNetwork
from tests.sampling import exhaustive

ATTENTIONS = ("pairwise", "patchwise")  # a patchwise network is among the whole models of test_command_line.py
SIZES = ((96, 64), (64, 128))


def randomize_norms(model: nn.Module) -> nn.Module:
    """Set random running statistics, so that norms are not the identity, and evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return model.eval()


RELATIONS = {
    "pairwise": ("summation", "concatenation", "hadamard", "dot"),
    "patchwise": ("star", "clique"),
}
SMALL: dict[str, Any] = {"depth": (1, 2), "widths": (32, 32), "kernel_sizes": (3, 7), "out_indices": (0, 1)}
PYRAMID: dict[str, Any] = {"out_indices": (1, 2, 3, 4)}
NETWORKS: list[dict[str, Any]] = [
    *(PYRAMID | {"depth": depth, "attention": attention} for depth in (10, 15, 19) for attention in ATTENTIONS),
    *(
        PYRAMID | {"depth": 10, "attention": kind, "relation": each}
        for kind, relations in RELATIONS.items()
        for each in relations
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("options", NETWORKS if exhaustive() else [SMALL], ids=lambda options: str(options))
def test_onnx(options: dict[str, Any], tmp_path: Path) -> None:
    """Equal results at sizes that are not multiples of the stride, standard operators only, named dynamic axes."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model = randomize_norms(SelfAttentionNetwork(**options))
    path = tmp_path / "network.onnx"
    export(model, path)
    assert verify(model, path, sizes=[*SIZES, (32, 32), (65, 97)]) < 1e-5
    written = onnx.load(path)
    onnx.checker.check_model(written)
    assert {node.domain for node in written.graph.node} == {""}
    assert [(each.domain, each.version) for each in written.opset_import] == [("", 20)]
    assert not written.functions
    (image,) = written.graph.input
    axes = [axis.dim_param or axis.dim_value for axis in image.type.tensor_type.shape.dim]
    assert (image.name, axes) == ("image", ["batch", 3, "height", "width"])
    assert [output.name for output in written.graph.output] == [
        f"output{index}" for index in range(len(model.out_indices))
    ]
    operators = [node.op_type for node in written.graph.node]
    assert operators.count("Range") <= 4 * len(model.stages), "the tables of a stage are computed once"
    assert len(operators) < 2000


@pytest.mark.slow
def test_torch_export(tmp_path: Path) -> None:
    """Equal results, no operators of sa_layers, and an error for unsupported image sizes."""
    torch.manual_seed(0)
    network = SelfAttentionNetwork((1, 1), widths=(32, 32), kernel_sizes=(3, 7), out_indices=(0, 1))
    model, path = randomize_norms(network), tmp_path / "network.pt2"
    export(model, path, "torch-export")
    assert verify(model, path, "torch-export", SIZES) < 1e-5
    program = torch.export.load(path)
    assert not [node for node in program.graph.nodes if "sa_layers" in str(node.target)]
    with pytest.raises(AssertionError, match="Guard failed"):
        program.module()(torch.zeros(1, 3, 65, 96))


@pytest.mark.slow
def test_aotinductor(tmp_path: Path) -> None:
    """A compiled layer returns equal results at two image sizes."""
    torch.manual_seed(0)
    model, path = randomize_norms(PatchwiseSelfAttention(16, 16, 3)), tmp_path / "layer.pt2"
    export(model, path, "aotinductor", in_channels=16, stride=4)
    assert verify(model, path, "aotinductor", ((8, 12), (20, 16)), in_channels=16) < 1e-4


def test_verify_notices_a_difference(tmp_path: Path) -> None:
    """Different parameters and different shapes."""
    path = tmp_path / "linear.pt2"
    model = nn.Conv2d(3, 4, 1)
    export(model, path, "torch-export", stride=4)
    assert verify(model, path, "torch-export", ((8, 12), (20, 16))) == 0
    with torch.no_grad():
        model.bias[0] += 1e-2
    with pytest.raises(ExportError, match=r"differs from the model by 1.0e-02 at 8 x 12 pixels"):
        verify(model, path, "torch-export", ((8, 12), (20, 16)))
    with pytest.raises(
        ExportError, match=r"returns \(1, 4, 8, 12\) float32 .*, but the model returns \(1, 5, 8, 12\) float32"
    ):
        verify(nn.Conv2d(3, 5, 1), path, "torch-export", ((8, 12), (20, 16)))


def test_errors(tmp_path: Path) -> None:
    """Invalid arguments are rejected before the export."""
    model = nn.Conv2d(3, 4, 1)
    with pytest.raises(ExportError, match="format must be one of onnx, torch-export, aotinductor, got 'tflite'"):
        export(model, tmp_path / "model.onnx", "tflite")
    with pytest.raises(ExportError, match=r"file of this format must end in \.pt2, got '.*model\.onnx'"):
        export(model, tmp_path / "model.onnx", "torch-export")
    with pytest.raises(ExportError, match="nowhere is not a folder"):
        export(model, tmp_path / "nowhere/model.pt2", "torch-export")
    with pytest.raises(ExportError, match="there is no file"):
        load(tmp_path / "model.pt2", "torch-export")


def test_needs_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "onnx", FORMATS["onnx"]._replace(packages=("onnx_of_the_moon",)))
    with pytest.raises(
        ExportError, match=r"needs onnx_of_the_moon, which is not installed: pip install 'sa-layers\[ex"
    ):
        export(nn.Conv2d(3, 4, 1), tmp_path / "model.onnx")


def test_checkpoints(tmp_path: Path) -> None:
    """Checkpoints of the same network are loaded, others are rejected."""
    network = make_network(10, "patchwise")
    torch.save({"state_dict": network.state_dict(), "meta": {}}, tmp_path / "san10.pth")
    loaded = make_network(10, "patchwise", tmp_path / "san10.pth")
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), loaded.parameters(), strict=True))
    torch.save(network, tmp_path / "whole.pth")
    with pytest.raises(ExportError, match=r"whole.pth contains more than tensors .* use --trust"):
        make_network(10, "patchwise", tmp_path / "whole.pth")
    make_network(10, "patchwise", tmp_path / "whole.pth", trust=True)
    with pytest.raises(ExportError, match=r"san10.pth belongs to another model: the checkpoint is for patchwise"):
        make_network(10, "pairwise", tmp_path / "san10.pth")
    with pytest.raises(ExportError, match=r"cannot read .*san11.pth: No such file"):
        make_network(10, "pairwise", tmp_path / "san11.pth")
