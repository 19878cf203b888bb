"""What is checked before anything is made: the arguments, the output path, the installed packages."""

import os
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

from sa_layers.datasets.classes import CLASSES
from sa_layers.datasets.errors import MissingPackageError, ShapesArgumentError
from sa_layers.datasets.manifest import Arguments

ALLOWED: dict[str, tuple[int, int]] = {
    "train": (len(CLASSES), 1_000_000),  # at least one scene a class, so that no classification folder is empty
    "val": (len(CLASSES), 1_000_000),
    "size": (32, 1024),
    "seed": (0, 2**32 - 1),
    "crop_size": (16, 1024),
}
"""Least and greatest value of each argument."""


def check_arguments(arguments: Arguments) -> None:
    """Raise ``ShapesArgumentError`` unless every argument is an integer in its range."""
    for field in fields(arguments):
        value = getattr(arguments, field.name)
        least, greatest = ALLOWED[field.name]
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= greatest:
            raise ShapesArgumentError(f"{field.name} must be an integer from {least} to {greatest}, got {value!r}")


def check_destination(out: str | os.PathLike[str]) -> Path:
    """Return ``out`` as an absolute path; raise ``ShapesArgumentError`` if no folder can be there."""
    if not os.fspath(out):
        raise ShapesArgumentError("out must name a folder, got an empty string")
    try:
        # Resolved, so that through a symbolic link the folder it points to is replaced, not the link.
        destination = Path(out).expanduser().resolve()
        nearest = next(path for path in (destination, *destination.parents) if path.exists())
        if not nearest.is_dir():
            raise ShapesArgumentError(f"out must be a folder, and {nearest} is a file")
    except ShapesArgumentError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # the last two: a ring of links, a null character
        raise ShapesArgumentError(f"out must be a usable path, and {os.fspath(out)!r} is not: {error}") from error
    return destination


def check_replaceable(destination: Path) -> None:
    """Raise ``ShapesArgumentError`` where a finished folder cannot be renamed into place."""
    if os.path.ismount(destination) or destination == Path.cwd():
        raise ShapesArgumentError(
            f"out must not be a mount point or the current folder, and {destination} is: "
            f"give a folder inside it, such as {destination / 'shapes'}"
        )


def check_packages(verbose: bool) -> None:
    """Raise ``MissingPackageError`` unless all that is needed, rich only with ``verbose``, is installed."""
    needed = {"numpy": "numpy", "cv2": "opencv-python", "skimage": "scikit-image"}
    if verbose:
        needed["rich"] = "rich"
    missing = [package for module, package in needed.items() if find_spec(module) is None]
    if missing:
        raise MissingPackageError(f"{', '.join(missing)} must be installed: pip install 'sa-layers[datasets]'")
