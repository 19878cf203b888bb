"""Stages that nobody asked for: they do not exist, or are neither called nor trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from sa_layers.models import SelfAttentionClassifier, SelfAttentionNetwork

SMALL: dict[str, Any] = {"depth": (1, 1, 2, 1, 1), "widths": (32, 32, 64, 64, 96), "kernel_sizes": (3, 3, 5, 3, 7)}
OUT_INDICES = [(0,), (3,), (1, 2), (4,), range(5)]


def small(**options: Any) -> SelfAttentionNetwork:
    torch.manual_seed(0)
    return SelfAttentionNetwork(**SMALL | options)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def one_process() -> Iterator[None]:
    """A group of the one process that runs the test."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("out_indices", OUT_INDICES)
def test_exist_only_if_asked_for(out_indices: Any, image: torch.Tensor) -> None:
    """And change no feature."""
    network, every = small(out_indices=out_indices).eval(), small(out_indices=range(5)).eval()
    assert len(network.stages) == len(network.stage_blocks) == max(out_indices) + 1
    for output, index in zip(network(image), out_indices, strict=True):
        torch.testing.assert_close(output, every(image)[index])


@pytest.mark.parametrize("training", [True, False])
def test_are_not_called(training: bool, image: torch.Tensor) -> None:
    """Stages that ``num_stages`` asks for, whether the network calls its modules or takes the fused path."""
    network = small(out_indices=(1,), num_stages=4).train(training)
    assert len(network.stages) == 4
    before = {name: buffer.clone() for name, buffer in network.stages[2:].named_buffers()}
    for stage in network.stages[2:]:
        stage.register_forward_pre_hook(lambda *_: pytest.fail("a stage behind the last of out_indices was called"))
    with torch.set_grad_enabled(training):
        (output,) = network(image)
    assert output.shape == (2, 32, 8, 16)
    for name, buffer in network.stages[2:].named_buffers():
        assert torch.equal(buffer, before[name]), name


@pytest.mark.parametrize("num_stages", [None, 5])
@pytest.mark.parametrize("out_indices", OUT_INDICES)
def test_every_trained_parameter_gets_a_gradient(out_indices: Any, num_stages: int | None, image: torch.Tensor) -> None:
    network = small(out_indices=out_indices, num_stages=num_stages)
    sum(output.sum() for output in network(image)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
        assert parameter.requires_grad == ("stages" not in name or int(name.split(".")[1]) <= max(out_indices)), name


@pytest.mark.parametrize(("out_indices", "num_stages"), [((3,), None), ((1, 2), 5), ((4,), None)])
@pytest.mark.usefixtures("one_process")
def test_distributed(out_indices: Any, num_stages: int | None, image: torch.Tensor) -> None:
    """DistributedDataParallel refuses a step after one in which a parameter had no gradient."""
    network = DistributedDataParallel(small(out_indices=out_indices, num_stages=num_stages))
    for _ in range(2):
        sum(output.sum() for output in network(image)).backward()


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_load_a_network_with_more_stages(prefix: str, image: torch.Tensor) -> None:
    """Strictly; other unknown names stay errors, and the given state dict is not changed."""
    whole, part = small(out_indices=range(5)), small(out_indices=(1, 2)).eval()
    whole(image)  # moves the running statistics
    state = {prefix + name: values for name, values in whole.state_dict().items()}
    names = list(state)
    loader = torch.nn.ModuleDict({"backbone": part}) if prefix else part
    loader.load_state_dict(state)
    assert list(state) == names
    for output, index in zip(part(image), (1, 2), strict=True):
        torch.testing.assert_close(output, whole.eval()(image)[index])
    for name in ("stages.5.norm.weight", "stages.2.other", "head.fc.weight"):
        with pytest.raises(RuntimeError, match="Unexpected key"):
            loader.load_state_dict(state | {prefix + name: torch.zeros(1)})
    with pytest.raises(RuntimeError, match="Missing key"):
        small(out_indices=(4,)).load_state_dict(part.state_dict())


def test_values_of_stages() -> None:
    """One for each of the five stages or of those that exist."""
    every = small(num_stages=3)
    first = SelfAttentionNetwork((1, 1, 2), widths=(32, 32, 64), kernel_sizes=(3, 3, 5), num_stages=3)
    assert repr(every) == repr(first)
    assert every.out_indices == (2,)
    assert every.min_size == every.out_strides[-1] == 8
    with pytest.raises(ValueError, match=r"widths must have a value for each of the 5 stages, or of the first 3, got"):
        small(num_stages=3, widths=(32, 64))


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (6, ValueError), ("4", TypeError), (2.0, TypeError)])
def test_num_stages_error(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"num_stages must be .*, got {value!r}"):
        small(num_stages=value)


def test_out_indices_error() -> None:
    with pytest.raises(ValueError, match=r"out_indices must be ascending stages from 0 to 2 \(or -3 to -1\), got 3"):
        small(num_stages=3, out_indices=3)


def test_min_size(image: torch.Tensor) -> None:
    """That of the stages which are called."""
    (output,) = small(out_indices=(1,), num_stages=5)(image[..., :4, :4])
    assert output.shape[2:] == (1, 1)


def test_classifier(image: torch.Tensor) -> None:
    """With the last stage that exists."""
    classifier = SelfAttentionClassifier(attention="patchwise", num_classes=3, num_stages=4, **SMALL)
    assert classifier.head.weight.shape == (3, 64)
    assert classifier(image).shape == (2, 3)
