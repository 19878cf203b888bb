"""The answer of the attention layers to code that looks for the weight of a convolution."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import nn


class OwnParameters(dict):
    """The parameters of a module itself, which say what to use instead of its ``weight``.

    :func:`torch.nn.utils.spectral_norm`, which mmcv's ``ConvModule(with_spectral_norm=True)`` calls, reads
    ``module._parameters['weight']``. An attention layer has no such parameter.

    Args:
        module: An attention layer.

    Example:
        >>> from sa_layers.backbones.layers import PatchwiseSelfAttention
        >>> nn.utils.spectral_norm(PatchwiseSelfAttention(8, 8, 3))
        Traceback (most recent call last):
        ValueError: PatchwiseSelfAttention has no parameter 'weight'; ...apply spectral_norm to each...
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module._parameters)
        self._layer = type(module).__name__

    def __missing__(self, name: str) -> NoReturn:
        """Raise an error."""
        if name != "weight":
            raise KeyError(name)
        raise ValueError(
            f"{self._layer} has no parameter 'weight'; instead of with_spectral_norm=True, apply spectral_norm to each "
            "of its linear layers: for linear in layer.transforms(): torch.nn.utils.spectral_norm(linear)"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made without calling the constructor."""
        return _restore, (dict(self), self._layer)


def _restore(parameters: dict[str, Any], layer: str) -> OwnParameters:
    restored = OwnParameters.__new__(OwnParameters)
    dict.update(restored, parameters)
    restored._layer = layer
    return restored
