"""Packages that are not installed with sa_layers, and the extras that install them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import ReportedError

EXTRAS: dict[str, tuple[str, ...]] = {
    "numpy": ("visualize", "reference", "datasets", "experiments"),
    "numba": ("reference",),
    "cv2": ("visualize", "datasets", "experiments"),
    "skimage": ("datasets",),
    "matplotlib": ("visualize", "benchmark", "experiments"),
    "rich": ("benchmark", "datasets", "experiments"),
    "torchvision": ("benchmark", "experiments"),
    "scipy": ("experiments",),
    "PIL": ("experiments",),
    "pyautoattack": ("experiments",),
    "onnx": ("export",),
    "onnxscript": ("export",),
    "onnxruntime": ("export",),
    "openvino": ("openvino",),
    "timm": ("timm",),
    "mmengine": ("backbones",),
    "mmcv": ("backbones",),
    "mmseg": ("segmentation",),
    "mmpretrain": ("classification",),
    "mmdet": ("detection",),
}
"""Extras of sa-layers that install a package, by the name under which the package is imported."""


class MissingPackageError(ReportedError, ModuleNotFoundError):
    """A package of an extra cannot be imported. The message says how to install it."""


def explain(error: ImportError, extra: str | None = None) -> str | None:
    """Describe in a sentence how to mend an import, or return None if it is not that of a package of an extra.

    Args:
        error: Error of the import.
        extra: Extra to suggest if several of them install the package. Defaults to None, the first one.

    Example:
        >>> explain(ModuleNotFoundError("No module named 'cv2'", name="cv2"), "datasets")
        "cv2 is not installed: pip install 'sa-layers[datasets]'"
    """
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    suggested = extra if extra in EXTRAS[package] else EXTRAS[package][0]
    if isinstance(error, ModuleNotFoundError) and (error.name == package or not sys.modules.get(package)):
        return f"{package} is not installed: pip install 'sa-layers[{suggested}]'"
    return f"{package} cannot be imported ({error}): pip install --force-reinstall 'sa-layers[{suggested}]'"


def require(extra: str, *packages: str) -> None:
    """Raise :class:`MissingPackageError` for the first of some packages of an extra that is not installed.

    Args:
        extra: Extra that installs them.
        packages: Names under which they are imported.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            missing = ModuleNotFoundError(f"No module named {package!r}", name=package)
            raise MissingPackageError(explain(missing, extra), name=package)


@contextmanager
def importing(extra: str) -> Iterator[None]:
    """Raise :class:`MissingPackageError` if a package of ``extra`` cannot be imported inside the block."""
    try:
        yield
    except MissingPackageError:
        raise
    except ImportError as error:
        explained = explain(error, extra)
        if explained is None:
            raise
        raise MissingPackageError(explained, name=error.name) from error
