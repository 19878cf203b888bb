"""Loading of checkpoint files into models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike

from torch import Tensor, nn

from .errors import MismatchError
from .layouts import find_layouts, rename
from .matching import below, check, first, has_shape_of
from .reading import read_state_dict

CONTAINERS = ("module.", "_orig_mod.")  # DataParallel and DistributedDataParallel, torch.compile


def load_checkpoint(model: nn.Module, path: str | PathLike[str], trust: bool = False) -> None:
    """Load a whole model from a checkpoint file, whichever layout the file has.

    The model can be a :class:`~sa_layers.models.SelfAttentionNetwork`, a
    :class:`~sa_layers.models.SelfAttentionClassifier`, a network of timm's registry or a model of OpenMMLab. Tensors of
    the file that the model has no module for, such as the head of a classifier for a network without one, are ignored.

    Args:
        model: Model that is changed in place.
        path: Checkpoint file, as :func:`read_state_dict` reads it.
        trust: Whether to unpickle objects of any class, which executes code that the file chooses. Defaults to False.

    Raises:
        CheckpointError: If the file cannot be read, has no state dict, or needs ``trust``.
        MismatchError: If tensors of the model are missing in the file or have another shape, in which case the model is
            unchanged, or if torch cannot copy one of them.

    Example:
        >>> from sa_layers.models import SelfAttentionClassifier
        >>> model = SelfAttentionClassifier(19, "patchwise")
        >>> load_checkpoint(model, "san19-patchwise.pth")  # doctest: +SKIP
    """
    own = {name: values for name, values in model.state_dict(keep_vars=True).items() if isinstance(values, Tensor)}
    state = fit(read_state_dict(path, trust), own)
    layouts = find_layouts(own)
    try:
        if len(layouts) == 1 and (given := below(state, layouts[0].network)):
            check(model.get_submodule(layouts[0].network.rstrip(".")), given, whole=True)
        missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
        misshapen = [name for name in own if name in state and not has_shape_of(own[name], state[name])]
        if missing:
            raise MismatchError(f"of {len(own)} tensors, {len(missing)} are missing: {first(missing)}")
        if misshapen:
            shapes = (f"{name} is {tuple(state[name].shape)} instead of {tuple(own[name].shape)}" for name in misshapen)
            raise MismatchError(f"of {len(own)} tensors, {len(misshapen)} have another shape: {first(shapes)}")
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # also of torch, which cannot copy tensors of every layout
        raise MismatchError(
            f"checkpoint {path} belongs to another model: {str(error).splitlines()[-1].strip()}"
        ) from error


def fit(state: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """Rename the tensors of a state dict in any layout to the names of a model, ``own``."""
    own = list(own)
    state = _unwrapped(state, own)
    layouts = find_layouts(own)
    if len(layouts) != 1:
        return state
    (layout,) = layouts
    return rename(state, layout.network, layout.head or "head.fc.")


def _unwrapped(state: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    state = dict(state)
    for _ in CONTAINERS:
        for prefix in CONTAINERS:
            if all(name.startswith(prefix) for name in state) and not any(name.startswith(prefix) for name in own):
                state = {name.removeprefix(prefix): values for name, values in state.items()}
    return state
