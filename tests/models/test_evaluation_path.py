"""The fused path of networks: the same features as by calling every module, and only if it is eligible."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

from sa_layers.fused.evaluation.stage import EvaluationStage
from sa_layers.layers import SelfAttentionBlock
from sa_layers.models import SelfAttentionNetwork
from sa_layers.ops import backend, fused
from sa_layers.ops.backend import decide

pytestmark = pytest.mark.skipif(
    decide(torch.device("cpu")) != "native", reason="the evaluation path needs the native kernels"
)
SMALL: dict[str, Any] = {"depth": (1, 1, 2, 1, 1), "widths": (32, 32, 64, 64, 96), "kernel_sizes": (3, 3, 5, 3, 7)}


def network(attention: str = "pairwise", **options: Any) -> SelfAttentionNetwork:
    """A network in evaluation mode whose norms do something, some scales being negative."""
    torch.manual_seed(0)
    made = SelfAttentionNetwork(attention=attention, **SMALL | options).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            randomise(module)
    return made


def randomise(norm: nn.BatchNorm2d) -> None:
    """Statistics as after training, scales of both signs."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_(0, 0.2)
        norm.running_mean.normal_(0, 0.2)
        norm.running_var.uniform_(0.5, 2)


@contextmanager
def counted() -> Iterator[mock.Mock]:
    """Counts the stages that take the evaluation path."""
    with mock.patch.object(EvaluationStage, "attend", autospec=True, side_effect=EvaluationStage.attend) as attend:
        yield attend


def check_equal(model: SelfAttentionNetwork, image: torch.Tensor, tolerance: float = 1e-4) -> None:
    """The evaluation path is taken, to the last stage that is wanted, and gives what the modules give one by one."""
    with torch.no_grad(), counted() as evaluate:
        results = model(image)
        assert evaluate.call_count == model.out_indices[-1] + 1
        evaluate.reset_mock()
        with fused(False):
            expected = model(image)
        assert not evaluate.called
    for result, wanted in zip(results, expected, strict=True):
        assert result.shape == wanted.shape
        assert result.dtype == wanted.dtype
        assert (result - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
@pytest.mark.parametrize(("depth", "size"), [(10, (67, 97)), (15, (63, 64)), (19, (33, 79))])
def test_networks(attention: str, depth: int, size: tuple[int, int]) -> None:
    """All six, on maps of odd sizes down to a single pixel, at every stage."""
    model = network(attention, depth=depth, widths=(64, 256, 512, 1024, 2048), out_indices=range(5))
    check_equal(model, torch.randn(2, 3, *size))


@pytest.mark.parametrize(
    ("attention", "options"),
    [
        ("pairwise", {"relation": "concatenation", "position": "absolute", "mapping_layers": 3}),
        ("pairwise", {"relation": "dot", "position": None, "mapping_layers": 1, "shared_transforms": "query_key"}),
        ("pairwise", {"relation": "hadamard", "shared_transforms": "all", "padding_mode": "zeros"}),
        ("pairwise", {"strides": (2, 2, 2, 1, 1), "dilations": (1, 1, 1, 2, 4), "bias": False}),
        ("patchwise", {"relation": "star", "shared_transforms": "all", "mapping_layers": 1}),
        ("patchwise", {"relation": "clique", "kernel_sizes": (3,) * 5, "share": 4, "in_channels": 1}),
        ("patchwise", {"widths": (32, 48, 80, 112, 144), "share": 4, "in_channels": 5}),
    ],
)
def test_options(attention: str, options: dict[str, Any]) -> None:
    """Whatever the attention, its transforms are one product; widths need not be those of vectors."""
    image = torch.randn(2, options.get("in_channels", 3), 45, 38)
    check_equal(network(attention, out_indices=range(5), **options), image)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_dtypes(attention: str, dtype: torch.dtype) -> None:
    """As near to the features in float64 as the modules called one by one, or nearer."""
    exact = network(attention, out_indices=(0, 1)).double()
    image = torch.randn(1, 3, 48, 40, dtype=torch.float64)
    if dtype == torch.float64:
        return check_equal(exact, image, 1e-12)
    model = copy.deepcopy(exact).to(dtype)
    with torch.no_grad():
        expected, results = exact(image), model(image.to(dtype))
        with fused(False):
            unfused = model(image.to(dtype))
    for wanted, result, one_by_one in zip(expected, results, unfused, strict=True):
        assert result.dtype == dtype
        assert (result - wanted).norm() <= max(1.2 * (one_by_one - wanted).norm(), 1e-2 * wanted.norm())
    return None


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
@pytest.mark.parametrize(
    ("large_map", "out_indices", "batches"),
    [
        (2**21, (4,), [3, 3, 3, 3, 3]),
        (40_000, (4,), [1] * 6 + [3] * 3),  # one image's maps have 49, 49 and 23 KB, then less
        (40_000, (0, 4), [3, 3, 3, 3, 3]),
        (40_000, (1, 2, 3), [1, 1, 1, 3, 3, 3]),
        (0, (4,), [1] * 12 + [3]),
    ],
)
def test_image_by_image(
    attention: str, large_map: int, out_indices: tuple[int, ...], batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large maps that are not wanted are computed for one image at a time."""
    monkeypatch.setattr("sa_layers.fused.evaluation.network.LARGE_MAP", large_map)
    model, image = network(attention, strides=(2, 1, 2, 2, 1), out_indices=out_indices), torch.randn(3, 3, 41, 38)
    with torch.no_grad(), counted() as attend:
        results = model(image)
        with fused(False):
            expected = model(image)
    assert [len(call.args[1]) for call in attend.call_args_list] == batches
    for result, wanted in zip(results, expected, strict=True):
        assert (result - wanted).abs().max() <= 1e-4 * wanted.abs().max()


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
@pytest.mark.parametrize("large_map", [2**21, 40_000])
@pytest.mark.parametrize("out_indices", [(4,), (0, 2), (1, 3, 4), range(5)])
def test_norms_for_the_next_pooling(
    attention: str, out_indices: tuple[int, ...], large_map: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage's norm that waits for the next stage, with a pooling or without, changes nothing."""
    monkeypatch.setattr("sa_layers.fused.evaluation.network.LARGE_MAP", large_map)
    model, image = network(attention, strides=(2, 1, 2, 2, 1), out_indices=out_indices), torch.randn(3, 3, 41, 38)
    with torch.no_grad():
        expected = model(image)
        monkeypatch.setattr("sa_layers.fused.evaluation.network.POOLING_NORMS", {"cpu"})
        with counted() as attend:
            results = model(image)
    waiting = [call for call in attend.call_args_list if call.args[3:] == (False,)]
    assert bool(waiting) == (len(out_indices) < 5)
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_format(memory_format: torch.memory_format) -> None:
    """Features have the layout of the image, on which code that reads raw memory relies."""
    image = torch.randn(2, 3, 32, 48).to(memory_format=memory_format)
    with torch.no_grad():
        for features in network(out_indices=range(5))(image):
            assert features.is_contiguous(memory_format=memory_format)


def test_input_is_left_alone() -> None:
    """A block adds in place to its own copy of the map."""
    torch.manual_seed(0)
    block = SelfAttentionBlock(64, 3).eval()
    randomise(block.norm1)
    stage = network().stages[2].eval()
    for module, channels in ((block, 64), (stage, 32)):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            features = torch.randn(1, channels, 9, 8).to(memory_format=memory_format)
            before = features.clone()
            with torch.no_grad():
                result = module(features)
                assert torch.equal(features, before)
                with fused(False):
                    torch.testing.assert_close(result, module(features), rtol=1e-4, atol=1e-5)


def change_norm(model: SelfAttentionNetwork) -> None:
    """An optimizer's step."""
    with torch.no_grad():
        model.stages[1].blocks[0].norm1.weight.mul_(-2)


def load(model: SelfAttentionNetwork) -> None:
    """Other weights."""
    other = network(depth=SMALL["depth"])
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    model.load_state_dict(other.state_dict())


def average(model: SelfAttentionNetwork) -> None:
    """A moving average, which changes `data` behind the parameters' back and then evaluates."""
    for parameter in model.parameters():
        parameter.data.mul_(0.9)
    model.eval()


def train(model: SelfAttentionNetwork) -> None:
    """A pass that moves the running statistics."""
    model.train()(3 * torch.randn(2, 3, 64, 64))
    model.eval()


def replace_parameter(model: SelfAttentionNetwork) -> None:
    """An assignment."""
    model.stem[0].weight = nn.Parameter(torch.randn(32, 3, 1, 1))


def replace_module(model: SelfAttentionNetwork) -> None:
    """A new layer."""
    model.stages[0].blocks[0].attention.value = nn.Conv2d(32, 8, 1)


def convert(model: SelfAttentionNetwork) -> None:
    """To another dtype and back, which changes the numbers."""
    model.bfloat16().float()


@pytest.mark.parametrize("change", [change_norm, load, average, train, replace_parameter, replace_module, convert])
def test_changes_are_seen(change: Callable[[SelfAttentionNetwork], None]) -> None:
    """Folded values are computed again after every change."""
    model, image = network(), torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        before = model(image)[0]
    change(model)
    check_equal(model, image)
    with torch.no_grad():
        assert not torch.equal(model(image)[0], before)


def test_copies() -> None:
    """Copied, pickled and saved after an evaluation, a network has the same state, and copies go their own way."""
    model, image = network(), torch.randn(1, 3, 40, 40)
    keys = set(model.state_dict())
    with torch.no_grad():
        expected = model(image)[0]
        assert set(model.state_dict()) == keys
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
            assert torch.equal(other(image)[0], expected)
            change_norm(other)
            assert not torch.equal(other(image)[0], expected)
            check_equal(other, image)
        assert torch.equal(model(image)[0], expected)


@pytest.mark.parametrize(
    "name", ["stem", "stem.1", "stages.0", "stages.0.pool", "stages.2.blocks.1", "stages.2.blocks.1.attention",
             "stages.3.transition", "stages.3.blocks.0.attention.key", "stages.4.blocks.0.expansion", "stages.4.act"]
)  # fmt: skip
def test_hooks(name: str) -> None:
    """A hook is called with the input and output of its module, and the result is the same."""
    model, image = network(), torch.randn(1, 3, 40, 40)
    seen = []
    with torch.no_grad():
        expected = model(image)[0]
        handle = model.get_submodule(name).register_forward_hook(lambda *call: seen.append(call[2].shape))
        watched = model(image)[0]
        assert len(seen) == 1
        torch.testing.assert_close(watched, expected, rtol=1e-4, atol=1e-5)
        handle.remove()
        assert torch.equal(model(image)[0], expected)
        handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module))
        model(image)
        handle.remove()
    assert model.get_submodule(name) in seen


def unusual_norm(model: SelfAttentionNetwork) -> None:
    """A norm of another kind."""
    for stage in model.stages:
        stage.norm = nn.GroupNorm(1, stage.norm.num_features)
    model.stem[1] = nn.GroupNorm(1, 32)


def unusual_activation(model: SelfAttentionNetwork) -> None:
    """An activation of another kind."""
    for stage in model.stages:
        stage.blocks[0].act2 = nn.LeakyReLU()


def unusual_convolution(model: SelfAttentionNetwork) -> None:
    """A linear layer wrapped, as parametrisations and adapters do."""
    for stage in model.stages:
        nn.utils.parametrizations.weight_norm(stage.transition)


def training_norm(model: SelfAttentionNetwork) -> None:
    """A norm that uses the batch's statistics."""
    for stage in model.stages:
        stage.blocks[0].norm2.train()


def wider_convolution(model: SelfAttentionNetwork) -> None:
    """A convolution that sees neighbours."""
    for stage in model.stages:
        stage.transition = nn.Conv2d(stage.transition.in_channels, stage.transition.out_channels, 3, padding=1)


@pytest.mark.parametrize(
    "change", [unusual_norm, unusual_activation, unusual_convolution, training_norm, wider_convolution]
)
def test_unusual_modules_are_called(change: Callable[[SelfAttentionNetwork], None]) -> None:
    """What the path does not know is computed by calling it."""
    model = network()
    change(model)
    with torch.no_grad(), counted() as evaluate:
        result = model(torch.randn(2, 3, 64, 64))[0]
    assert evaluate.call_count == 0
    assert result.isfinite().all()


def test_unusual_stem_is_called() -> None:
    """Another stem or pooling of the first stage, while the other stages stay fast."""
    for stem, pool in (
        (nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()), nn.MaxPool2d(2)),
        (nn.Sequential(nn.Conv2d(3, 32, 1), nn.ReLU()), nn.MaxPool2d(2)),
        (network().stem, nn.MaxPool2d(3, stride=2, padding=1)),
    ):
        model = network()
        model.stem, model.stages[0].pool = stem.eval(), pool
        check_equal(model, torch.randn(1, 3, 41, 64))


def test_biases_that_the_network_has_not() -> None:
    """A transition or stem with a bias, as after folding a norm by hand; an expansion without."""
    model = network()
    model.stem[0], model.stages[1].transition = nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 1)
    model.stages[2].blocks[0].expansion = nn.Conv2d(16, 64, 1, bias=False)
    check_equal(model, torch.randn(1, 3, 41, 64))


def test_when_it_is_not_taken() -> None:
    """Gradients, training, the switch, another backend."""
    model, image = network(), torch.randn(1, 3, 64, 64)
    with counted() as evaluate:
        model(image)[0].sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        with torch.no_grad():
            with fused(False):
                model(image)
            with backend("torch"):
                model(image)
            model.train()(torch.randn(2, 3, 64, 64))
        assert evaluate.call_count == 0
        model.eval().requires_grad_(False)
        model(image)  # no gradient is needed, whatever the mode
        assert evaluate.call_count == 5


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
@pytest.mark.parametrize("part", ["network", "stages.2", "stages.2.blocks.1"])
def test_autocast(attention: str, part: str) -> None:
    """Nearer to float32 than plain torch under autocast, in its dtypes."""
    model = network(attention, out_indices=(0, 4))
    module = model if part == "network" else model.get_submodule(part)
    features = torch.randn(2, 3 if part == "network" else 32 if part == "stages.2" else 64, 40, 33)
    with torch.no_grad():
        exact = outputs_of(module, features)
        for dtype in (torch.bfloat16, torch.float16):
            with torch.autocast("cpu", dtype), counted() as evaluate:
                results = outputs_of(module, features.to(dtype) if part == "stages.2" else features)
                calls = evaluate.call_count
                with fused(False), backend("torch"):
                    plain = outputs_of(module, features.to(dtype) if part == "stages.2" else features)
            assert calls == {"network": 5, "stages.2": 1}.get(part, 0)
            for wanted, result, one_by_one in zip(exact, results, plain, strict=True):
                assert result.dtype == one_by_one.dtype
                assert (result - wanted).norm() <= 1.1 * (one_by_one - wanted).norm()


def outputs_of(module: nn.Module, features: torch.Tensor) -> list[torch.Tensor]:
    """The outputs as a list."""
    outputs = module(features)
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_inference_tensors(attention: str) -> None:
    """A network that is made or converted in inference mode is fused, and sees writes of its tensors."""
    image = torch.randn(1, 3, 40, 33)
    with torch.inference_mode():
        made = network(attention)
        for model, dtype in ((made, torch.float32), (network(attention).bfloat16(), torch.bfloat16)):
            assert model.stem[0].weight.is_inference()
            original = SelfAttentionNetwork.plan
            with (
                counted() as evaluate,
                mock.patch.object(SelfAttentionNetwork, "plan", autospec=True, side_effect=original) as plan,
            ):
                before, *_ = (model(image.to(dtype))[0] for _ in range(3))
            assert evaluate.call_count == 15
            assert plan.call_count == 1  # nothing is made again
            model.stages[1].blocks[0].norm1.weight.mul_(-2)
            assert not torch.equal(model(image.to(dtype))[0], before)


def test_one_watched_block_leaves_the_other_stages_fast() -> None:
    """Stages decide by themselves."""
    model = network()
    model.stages[3].blocks[0].register_forward_hook(lambda *_: None)
    with torch.inference_mode(), counted() as evaluate:
        model(torch.randn(1, 3, 32, 32))
    assert evaluate.call_count == 4


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_compiled(attention: str) -> None:
    """torch.compile traces the path whole."""
    torch.compiler.reset()
    model, image = network(attention, out_indices=range(5)), torch.randn(1, 3, 40, 33)
    with torch.no_grad():
        expected = model(image)
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(image), expected, rtol=1e-4, atol=1e-5)
        change_norm(model)
        torch.testing.assert_close(compiled(image), model(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_exported(attention: str) -> None:
    """An exported program has none of the extension's operators."""
    model, image = network(attention), torch.randn(1, 3, 40, 33)
    program = torch.export.export(model, (image,))
    assert not any("sa_layers" in str(node.target) for node in program.graph.nodes)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(image), model(image), rtol=1e-4, atol=1e-5)
