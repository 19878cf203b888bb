"""Blocks and attention layers of a model replaced by functions while the model is exported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..layers import PairwiseSelfAttention, PatchwiseSelfAttention, SelfAttentionBlock

Forward = Callable[[Tensor], Tensor]


class Substitution(NamedTuple):
    """What replaces the attentions of a model: whole blocks where it can, otherwise their attention layers."""

    why_not_block: Callable[[SelfAttentionBlock], str | None]
    """One sentence on why a block cannot be replaced, or None."""
    why_not_layer: Callable[[Any], str | None]
    """One sentence on why an attention layer cannot be replaced, or None."""
    make_block: Callable[[SelfAttentionBlock], Forward]
    """Return a block as a function of its input, (N, C, H, W)."""
    make_layer: Callable[[Any], Forward]
    """Return an attention layer as a function of its input, (N, C, H, W)."""

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Replace what can be replaced inside the ``with`` block."""
        replaced = []
        try:
            for _, module, obstacle in self._attentions(model):
                if obstacle is None:
                    make = self.make_block if isinstance(module, SelfAttentionBlock) else self.make_layer
                    vars(module)["forward"] = make(module)
                    replaced.append(module)
            yield
        finally:
            for module in replaced:
                del vars(module)["forward"]

    def obstacles(self, model: nn.Module) -> dict[str, str]:
        """The attention layers of a model that are not replaced, by name, each with the reason in a sentence."""
        return {name: obstacle for name, _, obstacle in self._attentions(model) if obstacle is not None}

    def _attentions(self, model: nn.Module) -> Iterator[tuple[str, Any, str | None]]:
        """Yield the name of each attention, the block or else the layer to replace, and why it cannot be replaced."""
        inside = set()
        for name, module in model.named_modules():
            if type(module) is SelfAttentionBlock and self.why_not_block(module) is None:
                inside.add(module.attention)
                yield name, module, None
            elif isinstance(module, PairwiseSelfAttention | PatchwiseSelfAttention) and module not in inside:
                yield name, module, self.why_not_layer(module)
