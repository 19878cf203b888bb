"""What of a state dict a network accepts.

A network refuses what contradicts it: tensors of the wrong shape, and tensors that it cannot have, such as those of a
deeper network. What is absent is no contradiction: any part of a network can be loaded with
``load_state_dict(..., strict=False)``.

Only where a whole network is expected, as by mmengine, a state dict is also refused if none of its tensors fits, or if
it has some tensors of a kind of layer but not all: mmengine would log a warning and leave the rest at random values.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from itertools import islice
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .errors import MismatchError
from .layouts import rename

MAX_NAMES = 3  # number of tensors that an error message lists


def prepare(state: MutableMapping[str, Tensor], prefix: str, network: str = "", head: str = "head.fc.") -> None:
    """Rename the tensors below ``prefix`` in place to a layout. For use in ``_load_from_state_dict``."""
    local = below(state, prefix)
    renamed = rename(local, network, head)
    if renamed.keys() != local.keys():
        for name in local:
            del state[prefix + name]
        state.update({prefix + name: values for name, values in renamed.items()})


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors below a prefix, without it."""
    return {name.removeprefix(prefix): values for name, values in state.items() if name.startswith(prefix)}


def check(module: nn.Module, given: Mapping[str, Tensor], whole: bool = False) -> None:
    """Refuse a state dict of another network.

    Args:
        module: A network of stem and stages.
        given: State dict with the network's own names. Tensors outside of stem and stages are ignored, and those of
            stages behind the network's last.
        whole: Whether the whole network is expected. Defaults to False.

    Raises:
        MismatchError: If tensors have the wrong shape or cannot be in this network; with ``whole`` also if none of the
            tensors is in it, or only a part of those of a kind of layer.
    """
    own = module.state_dict(keep_vars=True)
    stages = _blocks_per_stage(own)
    inside = {
        name: values
        for name, values in given.items()
        if isinstance(values, Tensor)
        and (match := re.match(r"stem\.|stages\.(\d+)\.", name))
        and int(match[1] or 0) < len(stages)
    }
    # Profilers leave counters of one number in state dicts.
    unknown = [name for name, values in inside.items() if name not in own and values.numel() > 1]
    misshapen = [name for name, values in inside.items() if name in own and not has_shape_of(own[name], values)]
    incomplete = _incomplete(own, inside) if whole else []
    if whole and not own.keys() & inside.keys() and not unknown:
        raise MismatchError(_nothing_fits(given, own))
    if not (unknown or misshapen or incomplete):
        return
    if _is_of_other_attention(own, inside, bool(misshapen or incomplete)):
        kinds = "pairwise attention with positions", "patchwise attention, or pairwise attention without positions"
        raise MismatchError(
            f"the checkpoint is for {kinds[_has_position(own)]}, but this backbone has {kinds[not _has_position(own)]}"
        )
    blocks = _blocks_per_stage(inside)
    if blocks != stages and all(blocks) and not misshapen:
        raise MismatchError(
            f"the checkpoint has another depth: its stages have {blocks} blocks, this backbone has {stages}"
        )
    if misshapen:
        shapes = [f"{name} is {tuple(inside[name].shape)} instead of {tuple(own[name].shape)}" for name in misshapen]
        raise MismatchError(f"{len(shapes)} tensor(s) of the checkpoint have the wrong shape: {first(shapes)}")
    if unknown:
        raise MismatchError(f"{len(unknown)} tensor(s) of the checkpoint are not in this backbone: {first(unknown)}")
    raise MismatchError(
        f"the checkpoint has only a part of some layers of this backbone, {len(incomplete)} tensor(s) are missing: "
        f"{first(incomplete)}. To load a part on purpose, use load_state_dict(..., strict=False)"
    )


def first(names: Sequence[str] | Iterable[str]) -> str:
    """Join the first names of a list for an error message.

    Example:
        >>> first(["a", "b", "c", "d"])
        'a, b, c, ...'
    """
    some = list(islice(names, MAX_NAMES + 1))
    return ", ".join(some[:MAX_NAMES]) + ", ..." * (len(some) > MAX_NAMES)


def _nothing_fits(given: Mapping[str, Tensor], own: Iterable[str]) -> str:
    found = f": it has {first(given)}, and this backbone expects {first(own)}" if given else ""
    return (
        f"the checkpoint has no tensor of this backbone{found}. If it is of a model with this backbone, "
        "name the backbone's prefix there, as in init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.'). "
        "If a whole model loads a file of another layout, such as the authors', convert it: "
        "python -m sa_layers.convert SRC DST. "
        "To load other parts of a model only, use load_state_dict(..., strict=False)"
    )


def has_shape_of(own: Any, given: Tensor) -> bool:
    """Whether a tensor has the shape of the network's. Lazy parameters take every shape; a number has none or (1,)."""
    if not isinstance(own, Tensor) or is_lazy(own):
        return True
    return own.shape == given.shape or own.numel() == given.numel() == 1


def _is_of_other_attention(own: Iterable[str], given: Iterable[str], differs: bool) -> bool:
    """Whether a state dict that is refused is of the other kind of attention; ``differs`` if not only by its names."""
    if _has_position(given):
        return not _has_position(own)
    return differs and _has_position(own) and any(".attention." in name for name in given)


def _incomplete(own: Iterable[str], given: Mapping[str, object]) -> list[str]:
    """The absent tensors of the kinds of layers of which ``given`` has tensors. Counters of norms may be absent."""
    expected = [name for name in own if not name.endswith(".num_batches_tracked")]
    kinds = {_kind(name) for name in expected if name in given}
    return [name for name in expected if name not in given and _kind(name) in kinds]


def _kind(name: str) -> str:
    """The layer of a tensor, without the numbers of stage and block: 'stages.*.blocks.*.norm1'."""
    return re.sub(r"(stages|blocks)\.\d+", r"\1.*", name).rpartition(".")[0]


def _blocks_per_stage(names: Iterable[str]) -> tuple[int, ...]:
    """Count the blocks of each stage up to the last that has tensors."""
    blocks = {match[0] for name in names if (match := re.match(r"stages\.\d+\.(?:blocks\.\d+)?", name))}
    counts = Counter(int(block.split(".")[1]) for block in blocks if "blocks" in block)
    last = max((int(block.split(".")[1]) for block in blocks), default=-1)
    return tuple(counts[stage] for stage in range(last + 1))


def _has_position(names: Iterable[str]) -> bool:
    return any(".attention.position." in name for name in names)
