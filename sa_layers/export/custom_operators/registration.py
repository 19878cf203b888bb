"""Registration of the custom operators with a runtime, and the files that need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .libraries import custom_operators_library
from .nodes import DOMAIN


def register_custom_operators(target: Any) -> None:
    """Register the custom operators with a session's options or with an OpenVINO core, before a file is opened.

    The operators compute in the threads of the runtime. Set ``intra_op_num_threads`` first, since it also decides into
    how many tasks they split their work.

    Args:
        target: An ``onnxruntime.SessionOptions`` or an ``openvino.Core``.

    Raises:
        TypeError: ``target`` is something else.
        ExportError: The library cannot be compiled; see :func:`custom_operators_library`.

    Example:
        >>> import onnxruntime
        >>> options = onnxruntime.SessionOptions()
        >>> register_custom_operators(options)  # doctest: +SKIP
        >>> session = onnxruntime.InferenceSession("san19.onnx", options)  # doctest: +SKIP
    """
    if hasattr(target, "register_custom_ops_library"):
        if target.intra_op_num_threads:
            target.add_session_config_entry("sa_layers.threads", str(target.intra_op_num_threads))
        target.register_custom_ops_library(str(custom_operators_library("onnxruntime")))
    elif hasattr(target, "add_extension"):
        target.add_extension(str(custom_operators_library("openvino")))
    else:
        raise TypeError(f"target must be an onnxruntime.SessionOptions or an openvino.Core, got {target!r}")


def has_custom_operators(file: Path | bytes) -> bool:
    """Whether an ONNX file, or the bytes of one, has custom operators of this library."""
    import onnx

    model = onnx.load_from_string(file) if isinstance(file, bytes) else onnx.load(file, load_external_data=False)
    return any(opset.domain == DOMAIN for opset in model.opset_import)
