"""Checks of the arguments, the output path and the installed packages before a data set is generated."""

import os
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

from sa_layers.datasets.classes import CLASSES
from sa_layers.datasets.errors import MissingPackageError, ShapesArgumentError
from sa_layers.datasets.manifest import Arguments

ALLOWED: dict[str, tuple[int, int]] = {
    "train": (len(CLASSES), 1_000_000),  # at least one scene per class, so that no classification folder is empty
    "val": (len(CLASSES), 1_000_000),
    "size": (32, 1024),
    "seed": (0, 2**32 - 1),
    "crop_size": (16, 1024),
}
"""Minimum and maximum of each argument."""


def check_arguments(arguments: Arguments) -> None:
    """Raise ``ShapesArgumentError`` unless every argument is an integer in its range."""
    for field in fields(arguments):
        value = getattr(arguments, field.name)
        minimum, maximum = ALLOWED[field.name]
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise ShapesArgumentError(f"{field.name} must be an integer from {minimum} to {maximum}, got {value!r}")


def check_destination(out: str | os.PathLike[str]) -> Path:
    """Return ``out`` as an absolute path. Raise ``ShapesArgumentError`` if it cannot be a folder."""
    if not os.fspath(out):
        raise ShapesArgumentError("out must name a folder, got an empty string")
    try:
        # Resolve symbolic links, so that the target of a link is replaced instead of the link.
        destination = Path(out).expanduser().resolve()
        nearest = next(path for path in (destination, *destination.parents) if path.exists())
        if not nearest.is_dir():
            raise ShapesArgumentError(f"out must be a folder, but {nearest} is a file")
    except ShapesArgumentError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: cyclic links, ValueError: null character
        raise ShapesArgumentError(f"out must be a valid path, but {os.fspath(out)!r} is not: {error}") from error
    return destination


def check_replaceable(destination: Path) -> None:
    """Raise ``ShapesArgumentError`` if ``destination`` cannot be replaced by renaming another folder."""
    if os.path.ismount(destination) or destination == Path.cwd():
        raise ShapesArgumentError(
            f"out must not be a mount point or the current folder, but {destination} is one: "
            f"give a folder inside it, such as {destination / 'shapes'}"
        )


def check_packages(verbose: bool) -> None:
    """Raise ``MissingPackageError`` unless the required packages are installed. rich is required if ``verbose``."""
    needed = {"numpy": "numpy", "cv2": "opencv-python", "skimage": "scikit-image"}
    if verbose:
        needed["rich"] = "rich"
    missing = [package for module, package in needed.items() if find_spec(module) is None]
    if missing:
        raise MissingPackageError(f"{', '.join(missing)} must be installed: pip install 'sa-layers[datasets]'")
