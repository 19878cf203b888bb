"""torch.jit.trace, and torch.onnx's older exporter, which is built on it: what they record holds for every size."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention
from sa_layers.models import SelfAttentionNetwork
from sa_layers.ops import backend

SMALL: dict[str, Any] = {"depth": (1,) * 5, "widths": (32, 32, 32, 32, 64), "kernel_sizes": (3, 3, 5, 3, 3)}
NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("pairwise", {}),
    ("pairwise", {"position_image_size": 64, "padding_mode": "zeros"}),
    ("patchwise", {}),
]
pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")


def network(attention: str, **options: Any) -> nn.Module:
    """With the running statistics of some images."""
    torch.manual_seed(0)
    made = SelfAttentionNetwork(attention=attention, out_indices=(2, 4), **SMALL, **options)
    made(torch.randn(4, 3, 64, 64))
    return made.eval()


@pytest.mark.parametrize("chosen", [None, "torch"])
@pytest.mark.parametrize(("attention", "options"), NETWORKS)
def test_trace(attention: str, options: dict[str, Any], chosen: str | None) -> None:
    """Recorded where the map of the last stage has one pixel; it follows changes of parameters and can be saved."""
    plain = network(attention, **options)
    with backend(chosen):
        traced = torch.jit.trace(plain, torch.randn(1, 3, 32, 32))
        image = torch.randn(2, 3, 96, 80)
        torch.testing.assert_close(traced(image), plain(image))
        with torch.no_grad():
            plain.stages[1].blocks[0].attention.mapping[0].weight.mul_(2)
            plain.stages[3].transition.weight.mul_(2)
            torch.testing.assert_close(traced(image), plain(image), rtol=1e-4, atol=1e-5)
        file = io.BytesIO()
        torch.jit.save(traced, file)
        file.seek(0)
        torch.testing.assert_close(torch.jit.load(file)(image), traced(image))


def test_trace_in_training() -> None:
    """The gradients of a traced layer."""
    layer, features = PairwiseSelfAttention(8, 8, 3), torch.randn(2, 8, 5, 6)
    traced = torch.jit.trace(layer, features, check_trace=False)
    gradients = []
    for each in (layer, traced):
        layer.zero_grad()
        each(features).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in layer.parameters()])
    torch.testing.assert_close(*gradients)


def run_onnx(module: nn.Module, example: Tensor, features: Tensor, chosen: str | None) -> Tensor:
    """Export a module by the older exporter with sizes that may change, and run the file."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    file, axes = io.BytesIO(), {0: "batch", 2: "height", 3: "width"}
    with backend(chosen), torch.no_grad():
        torch.onnx.export(
            module, (example,), file, dynamo=False, opset_version=17, input_names=["x"], dynamic_axes={"x": axes}
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file.getvalue(), options)
    return torch.from_numpy(session.run(None, {"x": features.numpy()})[0])


@pytest.mark.parametrize("chosen", [None, "torch"])
@pytest.mark.parametrize(
    "layer",
    [
        PairwiseSelfAttention(8, 8, 3),
        PairwiseSelfAttention(8, 8, 3, relation="concatenation", position="absolute", stride=2, dilation=2),
        PairwiseSelfAttention(8, 8, 3, relation="dot", position_size=7, padding_mode="zeros"),
        PatchwiseSelfAttention(8, 8, 3),
        PatchwiseSelfAttention(8, 8, 3, relation="star", dilation=2),
        PatchwiseSelfAttention(8, 8, 3, relation="clique", stride=2),
    ],
    ids=lambda layer: f"{type(layer).__name__} {layer.relation}",
)
def test_onnx_of_layers(layer: nn.Module, chosen: str | None) -> None:
    features = torch.randn(2, 8, 9, 7)
    output = run_onnx(layer.eval(), torch.randn(1, 8, 6, 6), features, chosen)
    torch.testing.assert_close(output, layer(features).detach(), rtol=1e-4, atol=1e-5)


class LastFeatures(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor) -> Tensor:
        return self.backbone(image)[-1]


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_onnx_of_networks(attention: str) -> None:
    model, image = LastFeatures(network(attention)).eval(), torch.randn(2, 3, 96, 80)
    output = run_onnx(model, torch.randn(1, 3, 32, 32), image, None)
    torch.testing.assert_close(output, model(image).detach(), rtol=1e-4, atol=1e-5)
