"""The runtimes in which a trained network can be deployed on a CPU.

A new runtime is an entry of :data:`RUNTIMES`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..export import ExportError, export, load, register_custom_operators
from ..export.custom_operators.runtimes import HEADER_PACKAGE
from ..export.custom_operators.runtimes import RUNTIMES as COMPILED_AGAINST
from .candidates import arranged

Deployed = Callable[[Tensor], Tensor]
"""From images to logits."""


class Runtime(NamedTuple):
    """A runtime: its heading in tables, its package besides torch, and the function that prepares a network.

    ``prepare`` takes the network in evaluation mode, an image and a folder for files of this network, and returns a
    function that uses as many threads as torch.
    """

    heading: str
    package: str | None
    prepare: Callable[[nn.Module, Tensor, Path], Deployed]
    has_custom_operators: bool = False

    def missing_package(self) -> str | None:
        """The package of the runtime if it is not installed, or that with its header if that is needed, or None."""
        if self.package is None or importlib.util.find_spec(self.package) is None:
            return self.package
        if self.has_custom_operators:
            try:
                COMPILED_AGAINST[self.package]()
            except ExportError:
                return HEADER_PACKAGE
        return None

    def version(self) -> str | None:
        """The version of the package, or None for torch."""
        return None if self.package is None else importlib.metadata.version(self.package)


def _eager(model: nn.Module, image: Tensor, folder: Path) -> Deployed:
    return torch.no_grad()(model)


def _eager_channels_last(model: nn.Module, image: Tensor, folder: Path) -> Deployed:
    return _channels_last(arranged(model))


def _channels_last(model: Callable[[Tensor], Tensor]) -> Deployed:
    return torch.no_grad()(lambda image: model(image.to(memory_format=torch.channels_last)))


def _compiled(model: nn.Module, image: Tensor, folder: Path, **options: Any) -> Deployed:
    call = _channels_last(torch.compile(arranged(model), options=options))
    call(image)  # compiles it
    return call


def _onnxruntime(model: nn.Module, image: Tensor, folder: Path, custom_operators: bool = False) -> Deployed:
    program = load(_onnx_file(model, folder, custom_operators), threads=torch.get_num_threads())
    return lambda image: program(image)[0]


def _openvino(model: nn.Module, image: Tensor, folder: Path, custom_operators: bool = False) -> Deployed:
    import openvino

    core = openvino.Core()
    if custom_operators:
        register_custom_operators(core)
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(_onnx_file(model, folder, custom_operators)), "CPU", settings)
    return lambda image: torch.from_numpy(compiled(image.numpy())[0].copy())


def _onnx_file(model: nn.Module, folder: Path, custom_operators: bool) -> Path:
    """The ONNX file of a network, which is exported for the first runtime that reads it."""
    path = folder / ("custom.onnx" if custom_operators else "network.onnx")
    if not path.exists():
        export(model, path, custom_operators=custom_operators)
    return path


RUNTIMES = {
    "eager": Runtime("torch", None, _eager),
    "channels-last": Runtime("torch, channels last", None, _eager_channels_last),
    "compiled": Runtime("torch.compile, channels last", None, _compiled),
    "frozen": Runtime("torch.compile, channels last, freezing", None, partial(_compiled, freezing=True)),
    "onnxruntime": Runtime("onnxruntime", "onnxruntime", _onnxruntime),
    "onnxruntime-custom": Runtime(
        "onnxruntime, custom operators", "onnxruntime", partial(_onnxruntime, custom_operators=True), True
    ),
    "openvino": Runtime("OpenVINO", "openvino", _openvino),
    "openvino-custom": Runtime(
        "OpenVINO, custom operators", "openvino", partial(_openvino, custom_operators=True), True
    ),
}
