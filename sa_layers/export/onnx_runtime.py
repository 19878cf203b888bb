"""ONNX files in onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .custom_operators import has_custom_operators, register_custom_operators


def open_session(file: Path | bytes, threads: int | None = None) -> Any:
    """Open a file, or the bytes of one, in onnxruntime on the CPU. Custom operators are registered if it has any.

    Args:
        file: The ONNX file.
        threads: The number of threads, which then do not spin: threads that spin while they wait for the next call slow
            down the implementations that are timed in turns with the session. Defaults to None, for onnxruntime's own
            settings.

    Returns:
        An ``onnxruntime.InferenceSession``.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if has_custom_operators(file):
        register_custom_operators(options)
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def run_session(session: Any, image: Tensor) -> tuple[Tensor, ...]:
    """Run a session on an image and return its outputs."""
    return tuple(map(torch.from_numpy, session.run(None, {session.get_inputs()[0].name: image.cpu().numpy()})))
