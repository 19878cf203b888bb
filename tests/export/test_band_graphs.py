"""Attentions as band graphs in ONNX: equal to their definition in float64, for every option and odd sizes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sa_layers.export import FORMATS, export, load, why_not_banded
from sa_layers.export.band import banded, share_tables
from sa_layers.export.band.pairwise import fold_pairwise
from sa_layers.export.band.patchwise import fold_patchwise
from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention, SelfAttentionBlock
from sa_layers.models import SelfAttentionNetwork
from tests.conftest import MakeOnce
from tests.sampling import exhaustive

Pairwise, Patchwise = partial(PairwiseSelfAttention, 16, 16), partial(PatchwiseSelfAttention, 16, 16)
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "subtraction": lambda: Pairwise(7),
    "summation, absolute": lambda: Pairwise(3, relation="summation", position="absolute", bias=False),
    "concatenation, zeros": lambda: Pairwise(5, relation="concatenation", padding_mode="zeros"),
    "concatenation, absolute": lambda: Pairwise(3, relation="concatenation", position="absolute", stride=2),
    "hadamard": lambda: Pairwise((3, 5), relation="hadamard", stride=2, dilation=3),
    "hadamard, no position": lambda: Pairwise(3, relation="hadamard", position=None, padding_mode="zeros"),
    "dot": lambda: Pairwise(3, relation="dot", dilation=2, padding_mode="zeros"),
    "dot, no position": lambda: Pairwise(3, relation="dot", position=None, stride=(1, 3), dilation=(3, 2)),
    "position_size, zeros": lambda: Pairwise(3, position_size=(9, 13), padding_mode="zeros", stride=2),
    "one layer": lambda: Pairwise(3, mapping_layers=1, share=1),
    "three layers": lambda: Pairwise(3, mapping_layers=3, share=16, relation_channels=8),
    "query_key": lambda: Pairwise(3, shared_transforms="query_key", dilation=(1, 4), stride=(1, 6)),
    "all": lambda: Pairwise(3, shared_transforms="all", relation="summation"),
    "one column": lambda: Pairwise((5, 1), stride=(1, 2)),
    "patchwise": lambda: Patchwise(7),
    "patchwise, zeros": lambda: Patchwise(3, stride=2, padding_mode="zeros", bias=False),
    "patchwise, one layer": lambda: Patchwise((5, 3), mapping_layers=1, dilation=2),
    "patchwise, three layers": lambda: Patchwise(3, mapping_layers=3, stride=4, dilation=2, share=2),
    "star": lambda: Patchwise(3, relation="star", dilation=(1, 2)),
    "star, zeros": lambda: Patchwise(5, relation="star", stride=3, dilation=2, padding_mode="zeros"),
    "clique": lambda: Patchwise(3, relation="clique", shared_transforms="query_key"),
    "clique, zeros": lambda: Patchwise(3, relation="clique", stride=2, padding_mode="zeros"),
    "identity": lambda: Pairwise(3, norm_layer=lambda channels: nn.Identity()),
    "decomposed": lambda: Pairwise(3, norm_layer=partial(nn.GroupNorm, 1)),
    "block": lambda: SelfAttentionBlock(16, 3, share=4),
    "block, zeros": lambda: SelfAttentionBlock(16, 5, relation="dot", padding_mode="zeros", dilation=2, share=1),
    "patchwise block": lambda: SelfAttentionBlock(16, 3, "patchwise", share=2),
    "block with a hook": lambda: hooked(SelfAttentionBlock(16, 3, share=4)),
}
if not exhaustive():  # the others have every value of their options
    for name in "concatenation, absolute", "dot", "one column", "star", "clique, zeros":
        del LAYERS[name]
SIZES = ((2, 9, 14), (1, 17, 10), (3, 1, 2))


def hooked(block: SelfAttentionBlock) -> SelfAttentionBlock:
    block.norm2.register_forward_hook(lambda module, inputs, output: output * 2)
    return block


def randomize_norms(model: nn.Module, positive: bool = False) -> nn.Module:
    """Scales of either sign and statistics unlike those of new norms, in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.normal_(module.bias, 0, 0.3, generator=generator)
            nn.init.uniform_(module.weight, 0.5 if positive else -1, 1.5, generator=generator)
    return model.eval()


class SideBySide(nn.Module):
    """Layers of one input, so that one export serves all of them."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.names, self.layers = list(layers), nn.ModuleList(layers.values())

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        return tuple(layer(features) for layer in self.layers)


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    for package in FORMATS["onnx"].packages:
        pytest.importorskip(package)


@pytest.fixture(scope="module")
def model() -> SideBySide:
    torch.manual_seed(0)
    return SideBySide(
        {name: randomize_norms(make(), "7" in name or "identity" in name) for name, make in LAYERS.items()}
    )


@pytest.fixture(scope="module")
def path(model: SideBySide, make_once: MakeOnce) -> Path:
    """The file of all layers."""
    folder = make_once("band_graphs", lambda folder: export(model, folder / "layers.onnx", in_channels=16, stride=4))
    return folder / "layers.onnx"


@pytest.mark.slow
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_equal_to_the_definition(model: SideBySide, path: Path, shape: tuple[int, int, int]) -> None:
    batch, height, width = shape
    features = torch.randn(batch, 16, height, width, dtype=torch.float64)
    computed = load(path, threads=1)(features.float())
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(features)
    for name, ours, theirs in zip(model.names, computed, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=2e-5, atol=2e-5, msg=lambda text: f"{name}: {text}")  # noqa: B023


@pytest.mark.slow
def test_only_what_is_needed_is_decomposed(path: Path) -> None:
    """A decomposed attention takes ReduceSum, which band graphs do not."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(path).graph
    assert sum(node.op_type == "ReduceSum" for node in graph.node) <= 2 * 3
    assert {node.domain for node in graph.node} == {""}


def test_tables_are_shared() -> None:
    """One node for each size of a map, however many blocks a stage has."""
    network = SelfAttentionNetwork((1, 3, 2), out_indices=(2,), widths=(32, 32, 32), kernel_sizes=(3, 3, 5)).eval()
    any_size: Any = torch.export.Dim.DYNAMIC
    with torch.no_grad(), banded(network):
        image = torch.zeros(2, 3, 24, 32)
        program = torch.export.export(network, (image,), dynamic_shapes=({0: any_size, 2: any_size, 3: any_size},))
    share_tables(program.graph)
    names = [str(node.target) for node in program.graph.nodes if "sa_layers_export" in str(node.target)]
    assert names.count("sa_layers_export.pairwise_attention.default") == 6
    assert names.count("sa_layers_export.tables.default") == 3
    assert names.count("sa_layers_export.coordinates.default") == 3


@pytest.mark.parametrize("layer", [Pairwise(3, stride=2), Patchwise(3, dilation=2)], ids=lambda layer: layer.relation)
def test_other_exporters(layer: nn.Module, tmp_path: Path) -> None:
    """A layer of its own, recorded and translated as docs/export.md says, for one size of the map."""
    onnxruntime = pytest.importorskip("onnxruntime")
    from sa_layers.export.onnx_graph import TRANSLATIONS

    features, path = torch.randn(2, 16, 7, 9), tmp_path / "layer.onnx"
    with torch.no_grad(), banded(randomize_norms(layer)):
        program = torch.export.export(layer, (torch.zeros(2, 16, 7, 9),))
    share_tables(program.graph)
    torch.onnx.export(program, (), path, dynamo=True, custom_translation_table=TRANSLATIONS, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: features.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(output), layer(features), rtol=1e-4, atol=1e-5)


def test_model_is_restored() -> None:
    """Also if the export fails."""
    block, features = SelfAttentionBlock(16, 3, share=4).eval(), torch.randn(1, 16, 5, 6)
    expected = block(features)

    def fail() -> None:
        with banded(block):
            assert "forward" in vars(block)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not any("forward" in vars(module) for module in block.modules())
    torch.testing.assert_close(block(features), expected)


class Doubled(PairwiseSelfAttention):
    def relate(self, query: Tensor, key: Tensor) -> Tensor:
        return 2 * super().relate(query, key)


def test_reasons() -> None:
    """A sentence for each attention that has no band graph."""
    inner = Pairwise(3)
    inner.query.register_forward_hook(lambda *_: None)
    layers = {
        "plain": Pairwise(3),
        "block": SelfAttentionBlock(16, 3, share=4),
        "groups": Pairwise(3, norm_layer=partial(nn.GroupNorm, 1)),
        "gelu": Patchwise(3, act_layer=nn.GELU),
        "subclass": Doubled(16, 16, 3),
        "hook": inner,
        "float64": Patchwise(3).double(),
    }
    model = nn.ModuleDict(layers).eval()
    model.add_module("trained", Pairwise(3))
    assert why_not_banded(model) == {
        "groups": "mapping.0 is a GroupNorm instead of a BatchNorm2d",
        "gelu": "mapping.1 is a GELU instead of a ReLU",
        "subclass": "Doubled overrides relate",
        "hook": "a linear layer has a forward hook or an overridden forward",
        "float64": "its parameters are torch.float64",
        "trained": "mapping.0 is in training mode",
    }


@pytest.mark.parametrize("make", [PairwiseSelfAttention, PatchwiseSelfAttention])
def test_a_relation_of_later_is_refused(make: Any) -> None:
    """It must not be taken for one of today's."""
    layer = make(8, 8, 3).eval()
    layer.relation = "distance"
    with pytest.raises(NotImplementedError, match="no band graph for the relation 'distance'"):
        (fold_pairwise if make is PairwiseSelfAttention else fold_patchwise)(layer)
