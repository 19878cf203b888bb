"""The formats: how a model becomes a file, and how that file is run again."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from .errors import ExportError

Program = Callable[[Tensor], tuple[Tensor, ...]]


class Format(NamedTuple):
    """One way to write a program: the ending of its files, what it needs, how to write and to read one."""

    suffix: str
    packages: tuple[str, ...]
    write: Callable[[ExportedProgram, Path], Any]
    read: Callable[[Path], Program]


def export(model: nn.Module, path: str | Path, format: str = "onnx", in_channels: int = 3, stride: int = 32) -> None:
    """Writes a model as a program for batches of any number of images, and images of any size.

    Its operators are torch's own (or ONNX's): sa_layers is not needed to run it. A torch program refuses sizes that
    are no multiples of the model's stride, or a single stride; an ONNX program takes every size that the model takes.

    Args:
        model: Takes an image, (N, in_channels, H, W), and returns a tensor or a tuple of tensors. Exported in the mode
            that it is in: call ``eval()`` before.
        path: The file to write.
        format: 'onnx' (default), 'torch-export' or 'aotinductor'; the last is compiled for the model's device.
        in_channels: Channels of the image. Defaults to 3.
        stride: What the size of an image is a multiple of. Defaults to 32, the stride of a SAN's last stage.

    Raises:
        ExportError: The format is unknown or needs a package, or ``path`` has another ending or no folder.

    Example:
        >>> from sa_layers.models import SelfAttentionNetwork
        >>> network = SelfAttentionNetwork(10, "patchwise").eval()
        >>> export(network, "san10.onnx")  # doctest: +SKIP
    """
    path, writer = Path(path), find(format)
    if path.suffix != writer.suffix:
        raise ExportError(f"a file of format {format!r} must end in {writer.suffix}, got {str(path)!r}")
    if not path.absolute().parent.is_dir():
        raise ExportError(f"there is no folder {str(path.absolute().parent)!r} to write {path.name!r} to")
    parameter = next(model.parameters())
    # Three sizes that differ, none of them 1 in any stage: equal sizes and ones would be fixed.
    image = torch.zeros(2, in_channels, 3 * stride, 4 * stride, device=parameter.device, dtype=parameter.dtype)
    with torch.no_grad():
        program = torch.export.export(
            model, (image,), dynamic_shapes=({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
        )
        writer.write(program, path)


def load(path: str | Path, format: str = "onnx") -> Program:
    """Reads a program that :func:`export` wrote: a function of an image that returns a tuple of tensors.

    Raises:
        ExportError: The format is unknown or needs a package, or there is no such file.
    """
    reader = find(format)
    if not Path(path).is_file():
        raise ExportError(f"there is no file {str(path)!r}")
    return reader.read(Path(path))


def find(format: str) -> Format:
    """The format of this name, if the packages that it needs are there."""
    if format not in FORMATS:
        raise ExportError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    for package in FORMATS[format].packages:
        if importlib.util.find_spec(package) is None:
            raise ExportError(
                f"format {format!r} needs {package}, which is not installed: pip install 'sa-layers[export]'"
            )
    return FORMATS[format]


def outputs(result: Any) -> tuple[Tensor, ...]:
    """The tensors of a model that returns one, or a tuple or list of them."""
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _write_onnx(program: ExportedProgram, path: Path) -> None:
    count = len(program.graph_signature.user_outputs)
    exported = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        input_names=["image"],
        output_names=["output"] if count == 1 else [f"output{index}" for index in range(count)],
        dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
    )
    assert exported is not None
    exported.save(str(path))


def _read_onnx(path: Path) -> Program:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: tuple(map(torch.from_numpy, session.run(None, {"image": image.cpu().numpy()})))


def _read_torch_export(path: Path) -> Program:
    module = torch.export.load(path).module()
    return lambda image: outputs(module(image))


def _write_aotinductor(program: ExportedProgram, path: Path) -> None:
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def _read_aotinductor(path: Path) -> Program:
    compiled = torch._inductor.aoti_load_package(str(path))
    return lambda image: outputs(compiled(image))


FORMATS = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), _write_onnx, _read_onnx),
    "torch-export": Format(".pt2", (), torch.export.save, _read_torch_export),
    "aotinductor": Format(".pt2", (), _write_aotinductor, _read_aotinductor),
}
