"""Custom operators of onnxruntime and OpenVINO: the attentions of a model as nodes of the domain ``sa_layers``.

Their library is built from the kernels of csrc/cpu, which csrc/runtimes binds to a runtime instead of torch.
"""

from .libraries import custom_operators_library
from .registration import has_custom_operators, register_custom_operators
from .replacement import customised, why_not_custom

__all__ = [
    "custom_operators_library",
    "customised",
    "has_custom_operators",
    "register_custom_operators",
    "why_not_custom",
]
