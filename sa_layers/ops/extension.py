"""The native kernels: loaded once, with a sentence on why they are not available."""

import functools
import json
import os
from pathlib import Path

import torch

# The operators of library.cpp. A library without one of them was compiled from an older source tree.
OPERATORS = (
    "affine_relu",
    "affine_relu_",
    "aggregation",
    "aggregation_value_gradient",
    "aggregation_weight_gradient",
    "channel_statistics",
    "cpu_capability",
    "image_moments",
    "linear_backward_input",
    "linear_backward_weight",
    "linear_forward",
    "mask_and_sum",
    "max_pooling",
    "max_pooling_backward",
    "max_pooling_sums",
    "norm_backward",
    "norm_gradient",
    "norm_scale_and_shift",
    "norm_track",
    "normed_projection",
    "pairwise_attention",
    "pairwise_attention_implementations",
    "pairwise_relation",
    "pairwise_relation_key_gradient",
    "pairwise_relation_query_gradient",
    "pairwise_training_backward",
    "pairwise_training_correction",
    "pairwise_training_forward",
    "pairwise_training_moments",
    "pairwise_training_norm_backward",
    "pairwise_training_statistics",
    "patchwise_attention",
    "patchwise_attention_implementations",
    "patchwise_hidden",
    "patchwise_hidden_backward",
    "patchwise_row_sums",
    "patchwise_subtract_norm",
    "patchwise_weighted_sum",
    "patchwise_weighted_sum_backward",
    "pooled_projection",
    "projection",
    "softmax_aggregation",
    "softmax_aggregation_logits_gradient",
    "softmax_aggregation_value_gradient",
    "stem_backward",
)
_PACKAGE = Path(__file__).parent.parent
_HOW = "build them with `pip install --no-build-isolation .` (add -e to stay in a source tree)"


def is_available() -> bool:
    """Whether the native kernels are loaded, and ``torch.ops.sa_layers`` has its operators.

    The first call loads them, unless the environment variable ``SA_LAYERS_KERNELS`` is 'off'.

    Example:
        >>> is_available() == (why_not() is None)
        True
    """
    return _load() is None


def why_not() -> str | None:
    """One sentence on why the native kernels are not loaded and how to build them, or None if they are loaded."""
    return _load()


def why_not_cuda() -> str | None:
    """One sentence on why the CUDA kernels, which are a separate library, are not loaded, or None."""
    return _load() or _load_cuda()


@functools.cache
def _load() -> str | None:
    if os.environ.get("SA_LAYERS_KERNELS", "").lower() == "off":
        return "the native kernels are switched off by SA_LAYERS_KERNELS=off"
    library, info = _PACKAGE / "kernels.so", build_info()
    if not library.is_file():
        if reason := info.get("reason"):
            return f"the native kernels were not compiled, since {reason}; {_HOW}"
        return f"the native kernels were never compiled here ({library} does not exist); {_HOW}"
    try:
        torch.ops.load_library(str(library))
    except (OSError, RuntimeError) as error:  # a missing symbol of an older torch, a library of another platform
        built, needs = info.get("built_with_torch", "an unknown release"), info.get("needs_torch", "an unknown release")
        return (
            f"the native kernels, built with torch {built} for torch >= {needs}, could not be loaded into "
            f"torch {torch.__version__} ({' '.join(str(error).split())}); {_HOW}"
        )
    if missing := [name for name in OPERATORS if not hasattr(torch.ops.sa_layers, name)]:
        return f"the native kernels were compiled from an older sa_layers, without {', '.join(missing)}; {_HOW}"
    _load_cuda()
    return None


@functools.cache
def _load_cuda() -> str | None:
    library = _PACKAGE / "kernels_cuda.so"
    if not library.is_file():
        reason = build_info().get("cuda_reason") or f"{library} does not exist"
        return f"the CUDA kernels were not compiled, since {reason}; {_HOW}"
    try:
        torch.ops.load_library(str(library))
    except (OSError, RuntimeError) as error:  # torch without CUDA, or for another CUDA release
        return f"the CUDA kernels could not be loaded into torch {torch.__version__} ({' '.join(str(error).split())})"
    return None


def build_info() -> dict[str, object]:
    """What setup.py recorded about the build; empty if it never ran in this source tree."""
    try:
        info = json.loads((_PACKAGE / "build_info.json").read_text())
    except (OSError, ValueError):
        return {}
    return info if isinstance(info, dict) else {}
