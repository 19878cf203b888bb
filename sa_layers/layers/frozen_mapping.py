"""A mapping γ with frozen norms: whether it is one that a fused operator can stand for, and what it comes down to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .evaluation import NORMS, affine, is_pointwise, is_watched, why_not_affine

LAYERS = (NORMS, (nn.ReLU,), (nn.Conv2d,))  # exactly these classes: a subclass may compute anything
NUMBERS = {1: "one", 2: "two", 3: "three"}


def why_not_frozen(mapping: nn.Module, layers: Sequence[int] = (2,)) -> str | None:
    """One sentence on why the mapping's modules must be called one by one, or None.

    Args:
        mapping: What :func:`sa_layers.layers.make_mapping` made, or what has taken its place.
        layers: The numbers of linear layers that the operator has. Defaults to two.

    Example:
        >>> from sa_layers.layers import make_mapping
        >>> mapping = make_mapping(18, 16, 8, 2, nn.BatchNorm2d, nn.ReLU)
        >>> why_not_frozen(mapping)
        'mapping.0 is in training mode'
        >>> why_not_frozen(mapping.eval())
    """
    if type(mapping) is not nn.Sequential or len(mapping._modules) not in [3 * number for number in layers]:
        numbers = " or ".join(NUMBERS[number] for number in layers)
        return f"the mapping has not {numbers} linear layers, each after a norm and an activation"
    if is_watched(mapping):
        return "a hook watches the mapping"
    for index, (name, module) in enumerate(mapping._modules.items()):
        if type(module) not in LAYERS[index % 3]:
            return f"mapping.{name} is a {type(module).__name__}"
        if type(module) is nn.Conv2d and not is_pointwise(module):
            return f"mapping.{name} is no 1x1 convolution"
        if is_watched(module):
            return f"a hook watches mapping.{name}"
        if type(module) in NORMS and (obstacle := why_not_affine(module)):
            return f"mapping.{name} {obstacle}"
    return None


def fold_mapping(mapping: Any) -> tuple[Tensor, ...]:
    """The affine and the linear layers that a frozen mapping comes down to.

    Args:
        mapping: The mapping that :func:`why_not_frozen` has nothing against, from D to P channels.

    Returns:
        Scale and shift of the first norm, (D,), then of each linear layer the weight (out, in) and the bias (out,) with
        the norm that follows, the last with P outputs. In float32, or float64 for float64.
    """
    folded: list[Tensor] = []
    for norm, linear in zip(mapping[::3], mapping[2::3], strict=True):
        scale, shift = affine(norm)
        if folded:
            folded[-2:] = [folded[-2] * scale.unsqueeze(1), folded[-1] * scale + shift]
        else:
            folded = [scale, shift]
        weight = linear.weight.detach().to(scale.dtype).flatten(1)
        bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.detach().to(scale.dtype)
        folded += [weight, bias]
    return tuple(folded)
