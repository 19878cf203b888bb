"""Modes that change what operations return: no call under one changes the value of another, inside or outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal.two_tensor import TwoTensor

from sa_layers.models import SelfAttentionNetwork
from sa_layers.ops import fused

IMAGE, OTHER_IMAGE = torch.randn(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
Model = SelfAttentionNetwork


def make(attention: str) -> Model:
    """A small network in evaluation, whose norms are not the identity."""
    torch.manual_seed(0)
    model = SelfAttentionNetwork((1,) * 5, attention, widths=(32,) * 5, kernel_sizes=(3,) * 5).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, 0.1, 0.5)
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
    return model.requires_grad_(False)


def one_by_one(model: nn.Module, image: Tensor) -> Tensor:
    """What the modules compute."""
    with torch.no_grad(), fused(False):
        return model(image)[0]


def check_outside(model: Model) -> None:
    """A call outside all modes gives an ordinary tensor with the modules' value, in inference mode as without."""
    expected = one_by_one(model, IMAGE)
    for mode in torch.no_grad(), torch.inference_mode():
        with mode:
            output = model(IMAGE)[0]
        assert type(output) is Tensor
        torch.testing.assert_close(output, expected)


def fake(model: Model) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        output = model(mode.from_tensor(IMAGE))[0]
    assert output.stride() == one_by_one(model, IMAGE).stride()


def made_under_fake(model: Model) -> None:
    expected = one_by_one(model, IMAGE)
    with FakeTensorMode(), torch.no_grad():
        other = make(model.attention)
        assert other(torch.randn(2, 3, 32, 32))[0].stride() == expected.stride()


def traced(model: Model, tracing_mode: str) -> None:
    """The graph computes the value of another image."""
    with torch.no_grad():
        graph = make_fx(lambda image: model(image)[0], tracing_mode=tracing_mode, _allow_non_fake_inputs=True)(IMAGE)
        torch.testing.assert_close(graph(OTHER_IMAGE), one_by_one(model, OTHER_IMAGE))


def functionalized(model: Model) -> None:
    with torch.no_grad():
        output = torch.func.functionalize(lambda image: model(image)[0])(IMAGE)
    torch.testing.assert_close(output, one_by_one(model, IMAGE))


def mapped(model: Model) -> None:
    with torch.no_grad():
        output = torch.vmap(lambda image: model(image[None])[0][0])(IMAGE)
    torch.testing.assert_close(output, one_by_one(model, IMAGE))


def differentiated(model: Model) -> None:
    def loss(image: Tensor) -> Tensor:
        return model(image)[0].square().sum()

    image = IMAGE.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(image), image)
    torch.testing.assert_close(torch.func.grad(loss)(IMAGE), expected)


def called_with_other_parameters(model: Model) -> None:
    torch.manual_seed(1)
    other = SelfAttentionNetwork((1,) * 5, model.attention, widths=(32,) * 5, kernel_sizes=(3,) * 5).eval()
    with torch.no_grad():
        output = torch.func.functional_call(model, other.state_dict(), (IMAGE,))[0]
    torch.testing.assert_close(output, one_by_one(other, IMAGE))


def ensemble(model: Model) -> None:
    """Parameters with a mapped dimension."""
    models = [model, make(model.attention)]
    for parameter in models[1].parameters():
        parameter.mul_(1.1)
    parameters, buffers = torch.func.stack_module_state(models)  # type: ignore[arg-type]

    def call(*state: Any) -> Tensor:
        return torch.func.functional_call(model, state, (IMAGE,))[0]

    with torch.no_grad():
        outputs = torch.vmap(call)(parameters, buffers)
    torch.testing.assert_close(outputs, torch.stack([one_by_one(item, IMAGE) for item in models]))


def converted_in_inference_mode(model: Model) -> None:
    with torch.inference_mode():
        model.double()
        output = model(IMAGE.double())[0]
        model.float()
    torch.testing.assert_close(output, one_by_one(model.double(), IMAGE.double()))
    model.float()


@contextmanager
def wrapped(model: Model) -> Iterator[None]:
    """All parameters and buffers are tensors of a wrapper subclass inside the block."""
    before = [(module, dict(module._parameters), dict(module._buffers)) for module in model.modules()]
    for module, parameters, buffers in before:
        for name, item in parameters.items():
            if item is not None:
                module._parameters[name] = nn.Parameter(TwoTensor(item, item.clone()), requires_grad=False)
        for name, item in buffers.items():
            if item is not None:
                module._buffers[name] = TwoTensor(item, item.clone())
    yield
    for module, parameters, buffers in before:
        module._parameters.update(parameters)
        module._buffers.update(buffers)


def with_wrapped_parameters(model: Model) -> None:
    expected = one_by_one(model, IMAGE)
    with wrapped(model), torch.no_grad():
        output = model(TwoTensor(IMAGE, IMAGE.clone()))[0]
    assert isinstance(output, TwoTensor)
    torch.testing.assert_close(output.a, expected)


def called_under_meta(model: Model) -> None:
    """The default device of new tensors says nothing about a model's tensors."""
    with torch.no_grad(), torch.device("meta"):
        output = model(IMAGE)[0]
    torch.testing.assert_close(output, one_by_one(model, IMAGE))


def made_under_meta(model: Model) -> None:
    with torch.device("meta"):
        other = make(model.attention)
    with torch.no_grad():
        assert other(IMAGE.to("meta"))[0].shape == one_by_one(model, IMAGE).shape
    other.load_state_dict(model.state_dict(), assign=True)
    check_outside(other)


def made_with_empty_weights(model: Model) -> None:
    accelerate = pytest.importorskip("accelerate")
    with accelerate.init_empty_weights():
        other = make(model.attention)
    other.load_state_dict(model.state_dict(), assign=True)
    check_outside(other)


CALLS: dict[str, Callable[[Model], None]] = {
    "fake": fake,
    "made under fake": made_under_fake,
    "make_fx real": lambda model: traced(model, "real"),
    "make_fx fake": lambda model: traced(model, "fake"),
    "make_fx symbolic": lambda model: traced(model, "symbolic"),
    "functionalize": functionalized,
    "vmap": mapped,
    "grad": differentiated,
    "functional_call": called_with_other_parameters,
    "ensemble": ensemble,
    "inference": converted_in_inference_mode,
    "subclass": with_wrapped_parameters,
    "called under meta": called_under_meta,
    "made under meta": made_under_meta,
    "made with empty weights": made_with_empty_weights,
}


@pytest.mark.parametrize("first", [False, True], ids=["after a call", "first call"])
@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
@pytest.mark.parametrize("name", CALLS)
def test_a_mode_changes_no_value(name: str, attention: str, first: bool) -> None:
    """Neither under the mode, whether or not the model was called before, nor outside afterwards."""
    model = make(attention)
    if not first:
        check_outside(model)
    CALLS[name](model)
    check_outside(model)
