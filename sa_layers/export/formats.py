"""Export formats: how a program is written to a file and loaded again."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..output_file import OutputError, check_output, output_file
from .band import banded, share_tables
from .custom_operators import customised
from .errors import ExportError
from .onnx_runtime import open_session, run_session

Program = Callable[[Tensor], tuple[Tensor, ...]]


class Format(NamedTuple):
    """An export format: file suffix, required packages, and functions that translate and read a program.

    ``translate`` translates the program and returns a function that writes the result to a path, so that errors of the
    translation are not mistaken for errors of the file.
    """

    suffix: str
    packages: tuple[str, ...]
    translate: Callable[[ExportedProgram], Callable[[Path], Any]]
    read: Callable[[Path, int | None], Program]
    tracing: Callable[[nn.Module], AbstractContextManager[Any]] = nullcontext
    """The context in which torch.export traces the model. Defaults to none."""


def export(
    model: nn.Module,
    path: str | Path,
    format: str = "onnx",
    in_channels: int = 3,
    stride: int = 32,
    progress: Callable[[str], object] = lambda step: None,
    custom_operators: bool = False,
) -> None:
    """Export a model as a program with dynamic batch and image sizes.

    Unless ``custom_operators`` is set, the program contains only operators of torch or ONNX and runs without sa_layers.
    Torch programs require image sizes that are multiples of the model's stride and larger than it. ONNX programs accept
    all sizes that the model accepts.
    In an ONNX program, every attention for which :func:`why_not_banded` gives no reason is a band graph with folded
    norms, which is several times faster than its decomposition into operators of torch.

    Args:
        model: Module that takes an image (N, in_channels, H, W) and returns a tensor or a tuple of tensors. It is
            exported in its current mode, so call ``eval()`` first.
        path: File to write.
        format: 'onnx' (default), 'torch-export' or 'aotinductor', which is compiled for the model's device.
        in_channels: Number of channels of the image. Defaults to 3.
        stride: Stride of the model. Defaults to 32, the stride of a SAN's last stage.
        progress: Called with the name of each step before the step: 'tracing', 'translating', 'writing'. Defaults to
            a function that does nothing.
        custom_operators: Whether an ONNX program may have custom operators: every attention for which
            :func:`why_not_custom` gives no reason becomes a node of the domain ``sa_layers``. Such a program runs in
            sessions that :func:`register_custom_operators` has prepared. Defaults to False.

    Raises:
        ExportError: If the format is unknown, a required package is missing, torch cannot export the model, or ``path``
            has the wrong suffix or cannot be written. An existing file at ``path`` is not changed in this case.

    Example:
        >>> from sa_layers.models import SelfAttentionNetwork
        >>> network = SelfAttentionNetwork(10, "patchwise").eval()
        >>> export(network, "san10.onnx")  # doctest: +SKIP
    """
    writer = find(format)
    check_path(path, writer)
    if custom_operators and format != "onnx":
        raise ExportError(f"custom operators are a part of ONNX, got the format {format!r}")
    parameter = next(model.parameters())
    # torch.export specialises sizes of 1, and may specialise equal sizes. Therefore all three differ and exceed 1 in
    # every stage.
    image = torch.zeros(2, in_channels, 3 * stride, 4 * stride, device=parameter.device, dtype=parameter.dtype)
    try:
        with torch.no_grad():
            progress("tracing")
            with customised(model) if custom_operators else nullcontext(), writer.tracing(model):
                program = torch.export.export(
                    model, (image,), dynamic_shapes=({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
                )
            progress("translating")
            write = writer.translate(program)
    except Exception as error:  # of torch, of onnxscript, of a compiler, of the model
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"the model cannot be exported: {type(error).__name__}: {reason}") from error
    progress("writing")
    try:
        with output_file(path) as partial:
            write(partial)
    except OutputError as error:
        raise ExportError(str(error)) from error


def check_path(path: str | Path, format: Format) -> None:
    """Check that a program can be written, before it is exported, which may take minutes.

    Raises:
        ExportError: If ``path`` has the wrong suffix, is not a file, or cannot be written.
    """
    path = Path(path)
    if path.suffix != format.suffix:
        raise ExportError(f"a file of this format must end in {format.suffix}, got {str(path)!r}")
    try:
        check_output(path)
        if path.exists() and not path.is_file():
            raise ExportError(f"cannot write {path}: it is not a file, so the program could not be verified")
    except OutputError as error:
        raise ExportError(str(error)) from error


def load(path: str | Path, format: str = "onnx", threads: int | None = None) -> Program:
    """Load a program written by :func:`export`.

    Args:
        path: File to read.
        format: Format of the file.
        threads: Number of threads of onnxruntime, which then do not spin; see :func:`.onnx_runtime.open_session`. Torch
            programs use torch's threads. Defaults to None, for onnxruntime's own settings.

    Returns:
        A function from an image to a tuple of tensors.

    Raises:
        ExportError: If the format is unknown, a required package is missing, or the file does not exist.
    """
    reader = find(format)
    if not Path(path).is_file():
        raise ExportError(f"there is no file {str(path)!r}")
    return reader.read(Path(path), threads)


def find(format: str) -> Format:
    """Return the format of the given name.

    Raises:
        ExportError: If the format is unknown or a required package is missing.
    """
    if format not in FORMATS:
        raise ExportError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    for package in FORMATS[format].packages:
        if importlib.util.find_spec(package) is None:
            raise ExportError(
                f"format {format!r} needs {package}, which is not installed: pip install 'sa-layers[export]'"
            )
    return FORMATS[format]


def outputs(result: Any) -> tuple[Tensor, ...]:
    """Convert the output of a model, a tensor or a sequence of tensors, to a tuple."""
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _to_onnx(program: ExportedProgram) -> Callable[[Path], Any]:
    from .onnx_graph import OPSET, TRANSLATIONS, simplify  # needs onnxscript

    count = len(program.graph_signature.user_outputs)
    share_tables(program.graph)
    exported = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        optimize=False,
        opset_version=OPSET,
        custom_translation_table=TRANSLATIONS,
        input_names=["image"],
        output_names=["output"] if count == 1 else [f"output{index}" for index in range(count)],
        dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
    )
    assert exported is not None
    simplify(exported.model)
    return lambda path: exported.save(str(path))


def _read_onnx(path: Path, threads: int | None) -> Program:
    session = open_session(path, threads)
    return lambda image: run_session(session, image)


def _to_torch_export(program: ExportedProgram) -> Callable[[Path], Any]:
    buffer = io.BytesIO()  # torch's own writer of files aborts the process some time after its disk was full
    torch.export.save(program, buffer)
    return lambda path: path.write_bytes(buffer.getbuffer())


def _read_torch_export(path: Path, threads: int | None) -> Program:
    module = torch.export.load(path).module()
    return lambda image: outputs(module(image))


def _to_aotinductor(program: ExportedProgram) -> Callable[[Path], Any]:
    buffer = io.BytesIO()
    torch._inductor.aoti_compile_and_package(program, package_path=buffer)
    return lambda path: path.write_bytes(buffer.getbuffer())


def _read_aotinductor(path: Path, threads: int | None) -> Program:
    compiled = torch._inductor.aoti_load_package(str(path))
    return lambda image: outputs(compiled(image))


FORMATS = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), _to_onnx, _read_onnx, banded),
    "torch-export": Format(".pt2", (), _to_torch_export, _read_torch_export),
    "aotinductor": Format(".pt2", (), _to_aotinductor, _read_aotinductor),
}
