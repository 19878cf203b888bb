"""The private names of torch that the library uses exist, and are used in one file only."""

from __future__ import annotations

import re
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._ops
import torch.autograd.forward_ad
import torch.nn.modules.module

import sa_layers
from sa_layers.ops import torch_internals

PACKAGE = Path(sa_layers.__file__).parent
PRIVATE = re.compile(
    r"torch\.(\w+\.)*_[a-z]\w*|from torch\._|torch_module\._|"
    r"\._(forward_hooks|forward_pre_hooks|buffers|parameters|version|schema|global_\w+|current_level)\b"
)


def found(name: str) -> Any:
    """The object of a private name; of a module an instance."""
    path = name.removeprefix("torch.")
    if instance := re.fullmatch(r"nn\.(\w+)\(([\d, ]*)\)\.(\w+)", path):
        kind, arguments, attribute = instance.groups()
        made = getattr(torch.nn, kind)(*(int(argument) for argument in arguments.split(",") if argument))
        return getattr(made, attribute)
    if path == "_ops.OpOverload._schema":
        return torch.ops.aten.add.Tensor._schema
    return attrgetter(path)(torch)


@pytest.mark.parametrize("name", torch_internals.PRIVATE_NAMES)
def test_torch_still_has(name: str) -> None:
    try:
        found(name)
    except AttributeError:
        purpose = torch_internals.PRIVATE_NAMES[name]
        pytest.fail(
            f"torch {torch.__version__} no longer has {name}, which sa_layers uses to {purpose}: "
            f"replace it in {torch_internals.__file__}"
        )


@pytest.mark.parametrize("room", ["ops", "fused", "layers", "models"])
def test_private_names_are_used_in_one_file(room: str) -> None:
    for path in sorted((PACKAGE / room).glob("*.py")):
        if path.name != "torch_internals.py":
            used = [line for line in path.read_text().splitlines() if PRIVATE.search(line)]
            assert not used, f"{path} uses a private name of torch: move it to {torch_internals.__file__}"


def test_argument_names() -> None:
    assert torch_internals.argument_names(torch.ops.aten.add.Tensor) == ("self", "other", "alpha")


def test_values_of_a_module() -> None:
    norm = torch.nn.BatchNorm2d(2, affine=False)
    assert torch_internals.value_of(norm, "running_mean") is norm.running_mean
    assert torch_internals.value_of(norm, "weight") is None
    del norm.running_mean
    norm.running_mean = mean = torch.zeros(2)
    assert torch_internals.value_of(norm, "running_mean") is mean


def test_transforms() -> None:
    assert not torch_internals.is_transformed()
    seen = []
    torch.vmap(lambda item: seen.append(torch_internals.is_transformed()) or item)(torch.ones(2))
    with torch.autograd.forward_ad.dual_level():
        seen.append(torch_internals.is_transformed())
    assert seen == [True, True]
