"""Parameters and multiply-adds of networks, compared with the published figures, and the command line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sa_layers.complexity import count
from sa_layers.complexity.__main__ import main
from sa_layers.complexity.networks import san
from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention
from sa_layers.models import SelfAttentionNetwork
from sa_layers.ops import fused

# Parameters and multiply-adds of the official networks, recounted by the official code's rules.
OFFICIAL = {
    "ResNet26": ("13,696,552", "2.361"),
    "SAN10 pairwise": ("10,531,848", "2.155"),
    "SAN10 patchwise": ("11,841,124", "1.865"),
    "ResNet38": ("19,626,792", "3.242"),
    "SAN15 pairwise": ("14,065,436", "3.023"),
    "SAN15 patchwise": ("16,181,310", "2.583"),
    "ResNet50": ("25,557,032", "4.122"),
    "SAN19 pairwise": ("17,596,156", "3.844"),
    "SAN19 patchwise": ("20,518,470", "3.259"),
}


@pytest.mark.slow
def test_the_papers_table(capsys: pytest.CaptureFixture[str]) -> None:
    """The nine networks of the paper's table. Our figures, rounded, are equal to the paper's."""
    pytest.importorskip("torchvision")
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, expected in OFFICIAL.items():
        (line,) = (line for line in lines if line.startswith(name))
        parameters, billions, _, _, _, paper_parameters, _, paper_billions, _, top1, top5 = line[len(name) :].split()
        assert (parameters, billions) == expected
        assert round(int(parameters.replace(",", "")) / 1e6, 1) == float(paper_parameters)
        assert round(float(billions), 1) == float(paper_billions)
        assert 70 < float(top1) < 80 < 90 < float(top5)


@pytest.mark.parametrize(("attention", "convolutions"), [("pairwise", 2.017), ("patchwise", 1.765)])
def test_layers(attention: str, convolutions: float) -> None:
    """The costs of the layers add up to the cost of the network. SAN10's convolutions have the expected cost."""
    network = san(depth=10, attention=attention)
    complexity = count(network)
    counted = sum(layer.multiply_adds for layer in complexity.layers if layer.kind == "Conv2d")
    assert round(counted / 1e9, 3) == convolutions
    assert sum(layer.flops for layer in complexity.layers) == complexity.flops
    assert complexity.parameters == sum(parameter.numel() for parameter in network.parameters())
    names = dict(network.named_modules())
    assert {layer.name for layer in complexity.layers} >= {name for name in names if not list(names[name].children())}


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_flops_with_fake_and_real_tensors_are_equal(attention: str) -> None:
    """Counting does not change the network."""
    network = SelfAttentionNetwork((1,) * 5, attention, widths=(32,) * 5)
    before = {name: (values.clone(), values.device) for name, values in network.state_dict().items()}
    complexity = count(network, size=(64, 32))
    for name, values in network.state_dict().items():
        assert torch.equal(values, before[name][0])
        assert values.device == before[name][1]
    assert network.training
    with torch.no_grad(), fused(False), FlopCounterMode(display=False) as counter:
        network.eval()(torch.randn(1, 3, 64, 32))
    assert complexity.flops == counter.get_total_flops() > 0
    assert sum(layer.flops for layer in complexity.layers) == complexity.flops


ATTENTIONS: list[tuple[type[nn.Module], dict[str, Any], int]] = [
    # 25 pixels, 9 taps; 2 channels of query and key, 8 of value; 2 of relative position
    (PairwiseSelfAttention, {}, 25 * 9 * (2 + 2 + 8)),
    (PairwiseSelfAttention, {"relation": "hadamard", "position": None}, 25 * 9 * (2 + 8)),
    (PairwiseSelfAttention, {"relation": "dot", "position": "absolute"}, 25 * 9 * (2 + 8)),
    (PairwiseSelfAttention, {"relation": "concatenation"}, 25 * 9 * (2 + 8)),
    (PairwiseSelfAttention, {"relation": "summation", "stride": 2}, 9 * 9 * (2 + 2 + 8)),
    (PatchwiseSelfAttention, {}, 25 * 9 * 8),
    (PatchwiseSelfAttention, {"relation": "star"}, 25 * 9 * (2 + 8)),
    (PatchwiseSelfAttention, {"relation": "clique"}, 25 * 9 * (9 * 2 + 8)),
]


@pytest.mark.parametrize(("layer_type", "options", "expected"), ATTENTIONS)
def test_attention(layer_type: type[nn.Module], options: dict[str, Any], expected: int) -> None:
    """Relation, position and aggregation, compared with counts by hand."""
    complexity = count(layer_type(8, 8, 3, **options), size=(5, 5), in_channels=8)
    assert complexity.layers[0].multiply_adds == expected


def test_one_network(capsys: pytest.CaptureFixture[str]) -> None:
    """A network given by its arguments, with a table of its layers and without the paper's columns."""
    arguments = (
        "--depth 1,1,1,1,1 --attention patchwise --relation star --widths 32,32,32,32,32 --kernel-sizes 3,3,3,3,3"
    )
    assert main([*arguments.split(), "--mapping-layers", "1", "--layers", "--size", "64,96", "--classes", "7"]) == 0
    output = capsys.readouterr().out
    network = SelfAttentionNetwork(
        (1,) * 5, "patchwise", relation="star", widths=(32,) * 5, kernel_sizes=(3,) * 5, mapping_layers=1
    )
    parameters = sum(parameter.numel() for parameter in network.parameters()) + 7 * 33
    assert f"  {parameters:,}  " in output
    assert "64 x 96 pixels, 7 classes" in output
    assert "backbone.stages.4.blocks.0.attention.mapping.2  Conv2d                  1 x 9 x 1 x 6" in output
    assert "top-1" not in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--relation cosine", "relation must be one of subtraction"),
        ("--depth 12", "depth must be one of 10, 15, 19"),
        ("--attention patchwise --position relative", "position must be None for patchwise"),
        ("--depth 10 --size 16", "at least 32 x 32 pixels"),
        ("--size 64,", "argument --size"),
        ("--size 1,2,3", "--size"),
    ],
)
def test_wrong_arguments(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line reports the error messages of the network."""
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
