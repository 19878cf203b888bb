"""What the library of a runtime is compiled against: headers, and libraries of the runtime's package."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import ExportError

HEADER = "onnxruntime_c_api.h"
VARIABLE = "SA_LAYERS_ONNXRUNTIME_INCLUDE"
HEADER_PACKAGE = "amd-quark"
"""A small package of PyPI that ships the header; onnxruntime's own has none."""


class Runtime(NamedTuple):
    """What a compiler needs of a runtime."""

    version: str
    """The version of the headers."""
    headers: Path
    """The folder of the headers."""
    libraries: list[Path]
    """The libraries to link with."""


def onnxruntime() -> Runtime:
    """The header of onnxruntime's C API. A library compiled with an old header works in newer releases.

    Raises:
        ExportError: The header was not found.
    """
    for folder in _header_folders():
        if header := next(folder.rglob(HEADER), None) if folder.is_dir() else None:
            return Runtime(hashlib.sha256(header.read_bytes()).hexdigest(), header.parent, [])
    raise ExportError(
        f"the custom operators of onnxruntime need its C header, {HEADER}, which the package onnxruntime does not "
        f"contain: pip install --no-deps {HEADER_PACKAGE}, or install it by conda (onnxruntime-cpp) or apt "
        f"(libonnxruntime-dev), or set {VARIABLE} to its folder"
    )


def _header_folders() -> Iterator[Path]:
    if named := os.environ.get(VARIABLE):
        yield Path(named)
        return
    for prefix in (sys.prefix, os.environ.get("CONDA_PREFIX", sys.prefix), "/usr/local", "/usr"):
        yield Path(prefix, "include", "onnxruntime")
    try:
        files = importlib.metadata.files(HEADER_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return
    yield from (Path(str(file.locate())).parent for file in files if file.name == HEADER)


def openvino() -> Runtime:
    """The headers and libraries of the package openvino.

    Raises:
        ExportError: The package is not installed.
    """
    spec = importlib.util.find_spec("openvino")
    if spec is None or spec.origin is None:
        raise ExportError(
            "runtime 'openvino' needs openvino, which is not installed: pip install 'sa-layers[openvino]'"
        )
    folder = Path(spec.origin).parent
    names = ("libopenvino.so.*", "libopenvino_onnx_frontend.so.*", "libtbb.so.*")
    libraries = [path for name in names for path in sorted((folder / "libs").glob(name))]
    return Runtime(importlib.metadata.version("openvino"), folder / "include", libraries)


RUNTIMES: dict[str, Callable[[], Runtime]] = {"onnxruntime": onnxruntime, "openvino": openvino}
