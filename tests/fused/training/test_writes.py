"""Parameters, statistics, inputs and outputs that are written between the two passes, and what a step may write."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.sampling import sample

from .step import (
    as_list,
    check_step,
    collect,
    expected_step,
    like,
    plain_torch,
    random_gradients,
    random_loss,
)
from .subjects import EVERY_SUBJECT, LARGE, features_for, subject


@LARGE
def test_parameters_written_between_the_passes(name: str) -> None:
    """An error as torch's, or the gradients of the values that the forward pass read."""
    features = features_for(name)
    for key, _ in sample(subject(name).named_parameters(), 6, seed=1):
        module = subject(name)
        expected = expected_step(module, features)
        leaf = like(features)
        outputs = as_list(module(leaf))
        with torch.no_grad():
            module.get_parameter(key).mul_(3)
        check_or_error(module, outputs, leaf, expected, key)


@LARGE
def test_statistics_written_between_the_passes(name: str) -> None:
    """Running statistics of norms in evaluation, which the backward pass may read."""
    features = features_for(name)
    for key in sample([key for key, _ in subject(name).named_buffers() if "running" in key], 4):
        module = subject(name)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()
        expected = expected_step(module, features)
        leaf = like(features)
        outputs = as_list(module(leaf))
        module.get_buffer(key).mul_(3)
        del expected.buffers[key]
        check_or_error(module, outputs, leaf, expected, key, without=key)


def check_or_error(
    module: nn.Module,
    outputs: list[Tensor],
    leaf: Tensor,
    expected: Any,
    key: str,
    losses: list[Tensor] | None = None,
    without: str = "",
) -> None:
    """The gradients of ``losses``, by default of the outputs, are right, or torch says what was written."""
    message = None
    try:
        random_loss(outputs if losses is None else losses)
    except RuntimeError as error:
        message = str(error)
    if message is not None:
        assert "modified by an inplace operation" in message, key
        return
    step = collect(module, outputs, leaf)
    step.buffers.pop(without, None)
    check_step(step, expected)


@LARGE
def test_statistics_may_move_between_the_passes(name: str) -> None:
    """Another forward pass moves the running statistics of norms in training mode, which no backward pass reads."""
    module, features = subject(name), features_for(name)
    expected = expected_step(module, features)
    leaf = like(features)
    outputs = as_list(module(leaf))
    with torch.no_grad():
        module(features_for(name, seed=5))
    random_loss(outputs)
    step = collect(module, outputs, leaf)
    check_step(step._replace(buffers=expected.buffers), expected)


@EVERY_SUBJECT
def test_inputs_written_between_the_passes(name: str) -> None:
    """An error as torch's, or the gradients for the input as it was."""
    module, features = subject(name), features_for(name)
    expected = expected_step(module, features)
    leaf = like(features)
    middle = leaf * 1.0
    outputs = as_list(module(middle))
    middle.mul_(3)
    check_or_error(module, outputs, leaf, expected, "input")


@EVERY_SUBJECT
@pytest.mark.parametrize("operation", ["relu_", "mul_", "zero_"])
def test_outputs_written_between_the_passes(name: str, operation: str) -> None:
    """In-place operations on the output, as an activation that follows a block: right, or an error."""
    module, features = subject(name), features_for(name)

    def results(part: nn.Module, in_place: bool) -> Any:
        leaf = like(features)
        outputs = as_list(part(leaf))
        if operation == "relu_":
            outputs = [output.relu_() if in_place else output.relu() for output in outputs]
        elif operation == "mul_":
            outputs = [output.mul_(2) if in_place else output * 2 for output in outputs]
        else:
            for output in outputs if in_place else []:
                output.detach().zero_()
        return part, outputs, leaf

    with plain_torch():
        other, outputs, leaf = results(copy.deepcopy(module), False)
        random_loss(outputs)
    expected = collect(other, [], leaf)
    part, outputs, leaf = results(copy.deepcopy(module), True)
    check_or_error(part, [], leaf, expected, "output", outputs)


@EVERY_SUBJECT
def test_calls_leave_their_operands_alone(name: str) -> None:
    """Neither the input nor a parameter nor the gradient of the output is written."""
    module, features = subject(name), features_for(name)
    numbers, parameters = features.detach().clone(), [parameter.detach().clone() for parameter in module.parameters()]
    outputs = as_list(module(features))
    results = [output.detach().clone() for output in outputs]
    gradients = random_gradients(outputs)
    torch.autograd.backward(outputs, gradients)
    assert torch.equal(features, numbers)
    assert all(map(torch.equal, module.parameters(), parameters))
    assert all(map(torch.equal, gradients, random_gradients(outputs)))
    assert all(map(torch.equal, outputs, results))
    assert features.grad is not None
    leaves = [features.grad, *(parameter.grad for parameter in module.parameters())]
    memories = sorted((leaf.data_ptr(), leaf.data_ptr() + leaf.nbytes) for leaf in leaves if leaf is not None)
    assert len(memories) == len(leaves)
    ends = [end for _, end in memories]
    assert all(end <= begin for end, (begin, _) in zip(ends, memories[1:], strict=False)), "gradients share memory"
