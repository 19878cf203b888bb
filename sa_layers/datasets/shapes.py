"""A small generated data set of geometric objects over photographs, for classification, detection and segmentation.

``python -m sa_layers.datasets.shapes OUT [--train N] [--val N] [--size PIXELS] [--seed S]`` writes::

    OUT/images/{train,val}/000000.png                      the scenes, shared by detection and segmentation
    OUT/label_maps/{train,val}/000000.png                  uint8 label maps: 0 background, 1 to 3 the classes
    OUT/coco/instances_{train,val}.json                    bounding boxes and masks of the visible pixels
    OUT/classification/{train,val}/<class>/000000_0.png    a crop of each object that is sufficiently visible
    OUT/manifest.json                                      arguments, counts, and the size of each folder

The same arguments give bitwise equal files. Scene i of a split depends on the seed and the size, but not on the number
of scenes.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

from sa_layers.command_line import command
from sa_layers.datasets.atomic_folder import rename_into_place, temporary_folder
from sa_layers.datasets.checks import check_arguments, check_destination, check_packages, check_replaceable
from sa_layers.datasets.classes import CLASSES, LABELS, PALETTE
from sa_layers.datasets.errors import (
    BrokenFolderError,
    ForeignFolderError,
    MissingPackageError,
    ShapesArgumentError,
    ShapesError,
)
from sa_layers.datasets.manifest import SPLITS, Arguments, ShapesFolder, check_ours, read_complete, write_manifest

__all__ = [
    "CLASSES",
    "LABELS",
    "PALETTE",
    "BrokenFolderError",
    "ForeignFolderError",
    "MissingPackageError",
    "ShapesArgumentError",
    "ShapesError",
    "ShapesFolder",
    "make_shapes",
    "verify",
]


def make_shapes(
    out: str | os.PathLike[str],
    train: int = 400,
    val: int = 80,
    size: int = 128,
    seed: int = 0,
    *,
    crop_size: int = 64,
    verbose: bool = False,
) -> ShapesFolder:
    """Generate the shapes data set in ``out``, unless it already exists.

    The folder gets its name only when it is complete. A shapes folder that is incomplete or was generated with other
    arguments is regenerated. Any other folder that is not empty is left untouched.

    Args:
        out: Folder of the data set. Its parent folders are created.
        train: Number of training scenes, at least 3. Defaults to 400.
        val: Number of validation scenes, at least 3. Their backgrounds share no pixels with those of the training
            scenes. Defaults to 80.
        size: Side of a scene in pixels, from 32 to 1024. Defaults to 128.
        seed: Random seed. Defaults to 0.
        crop_size: Side of a classification crop in pixels, from 16 to 1024. Defaults to 64.
        verbose: Whether to show a progress bar on standard error, and the reason if a folder is regenerated. Defaults
            to False.

    Returns:
        The path, arguments and counts of the data set.

    Raises:
        ShapesArgumentError: If an argument is out of range, or ``out`` cannot be a folder.
        ForeignFolderError: If ``out`` contains other files.
        MissingPackageError: If OpenCV, scikit-image or (with ``verbose``) rich is not installed.
        ShapesError: If the files cannot be written.

    Example:
        >>> import tempfile
        >>> shapes = make_shapes(tempfile.mkdtemp() + "/shapes", train=5, val=5, size=32)
        >>> shapes.counts["train"]["images"]
        5
    """
    arguments = Arguments(train=train, val=val, size=size, seed=seed, crop_size=crop_size)
    check_arguments(arguments)
    destination = check_destination(out)
    existing = _existing(destination, arguments)
    if isinstance(existing, ShapesFolder):
        return existing
    check_replaceable(destination)
    check_packages(verbose)
    if verbose and existing:
        print(f"{existing}: regenerating the data set.", file=sys.stderr)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(destination) as partial:
            _build(partial, arguments, verbose)
            made = replace(read_complete(partial), path=destination)
            # If another process has finished the same data set in the meantime, keep its folder.
            rename_into_place(partial, destination, lambda: isinstance(_existing(destination, arguments), str))
            return made
    except OSError as error:
        raise ShapesError(f"out {destination} cannot be written: {error.strerror or error}") from error


def verify(out: str | os.PathLike[str]) -> ShapesFolder:
    """Check by the number and size of its files that ``out`` is a complete shapes data set.

    Raises:
        BrokenFolderError: If it is not. The message gives the reason.

    Example:
        >>> import tempfile
        >>> shapes = make_shapes(tempfile.mkdtemp() + "/shapes", train=5, val=5, size=32)
        >>> verify(shapes) == shapes
        True
    """
    return read_complete(Path(out).expanduser().resolve())


def _existing(destination: Path, arguments: Arguments) -> ShapesFolder | str:
    """Return the existing data set if it is complete and has these arguments, otherwise the reason to regenerate it.

    The reason is '' if ``destination`` does not exist or is empty.
    """
    try:
        if not destination.is_dir() or not any(destination.iterdir()):
            return ""
    except OSError as error:
        raise ShapesArgumentError(f"out {destination} cannot be read: {error.strerror}") from error
    try:
        shapes = read_complete(destination)
        if shapes.arguments == arguments:
            return replace(shapes, already_there=True)
        names = [field.name for field in fields(arguments)]
        reason = f"{destination} was generated with " + ", ".join(
            f"{name} {getattr(shapes.arguments, name)} instead of {getattr(arguments, name)}"
            for name in names
            if getattr(shapes.arguments, name) != getattr(arguments, name)
        )
    except BrokenFolderError as error:
        reason = str(error)
    check_ours(destination)
    return reason


def _build(root: Path, arguments: Arguments, verbose: bool) -> None:
    # Imported here because CLASSES, verify and the checks above do not need OpenCV.
    try:
        import numpy as np

        from sa_layers.datasets.photographs import load_photographs, random_crop
        from sa_layers.datasets.scenes import draw_scene
        from sa_layers.datasets.split_writer import SplitWriter
    except ImportError as error:
        raise MissingPackageError(
            f"a package cannot be imported ({error}): pip install --force-reinstall 'sa-layers[datasets]', "
            "or opencv-python-headless if libGL is missing"
        ) from error

    counts: dict[str, dict[str, int]] = {}
    sources: dict[str, dict[str, str]] = {}
    for split_number, split in enumerate(SPLITS):
        photographs = load_photographs(split)
        writer = SplitWriter(root, split, arguments.crop_size)
        with _progress(split, getattr(arguments, split), verbose) as numbers:
            for number in numbers:
                generator = np.random.default_rng([arguments.seed, arguments.size, split_number, number])
                photograph = photographs[int(generator.integers(len(photographs)))]
                background = random_crop(photograph, arguments.size, generator)
                writer.add(draw_scene(background, number % len(CLASSES), generator), photograph.name)
        counts[split] = writer.finish()
        sources[split] = {photograph.name: photograph.sha256 for photograph in photographs}
    write_manifest(root, arguments, counts, sources)


@contextmanager
def _progress(split: str, total: int, verbose: bool) -> Iterator[Iterable[int]]:
    """Yield ``range(total)``, with a progress bar if ``verbose``."""
    if not verbose:
        yield range(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:>5} scenes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress.track(range(total), description=split)


def _integer(text: str) -> int | str:
    """Convert to an integer if possible. Otherwise ``check_arguments`` reports the allowed values."""
    try:
        return int(text)
    except ValueError:
        return text


@command("datasets")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    It is 0 for success, 1 for failure, 2 for invalid arguments and 130 for an interruption.
    """
    parser = argparse.ArgumentParser(
        prog="python -m sa_layers.datasets.shapes",
        description="Generate a small data set of geometric objects over photographs: "
        "COCO boxes and masks, label maps, and classification crops.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("out", metavar="OUT", help="folder of the data set")
    parser.add_argument("--train", metavar="N", type=_integer, default=400, help="number of training scenes")
    parser.add_argument("--val", metavar="N", type=_integer, default=80, help="number of validation scenes")
    parser.add_argument("--size", metavar="PIXELS", type=_integer, default=128, help="side of a scene in pixels")
    parser.add_argument("--seed", metavar="S", type=_integer, default=0, help="random seed")
    parser.add_argument(
        "--crop-size", metavar="PIXELS", type=_integer, default=64, help="side of a classification crop in pixels"
    )
    given = parser.parse_args(argv)
    try:
        shapes = make_shapes(
            given.out, given.train, given.val, given.size, given.seed, crop_size=given.crop_size, verbose=True
        )
    except KeyboardInterrupt:
        print(f"interrupted: {given.out} was not changed.", file=sys.stderr)
        return 130
    total = {what: sum(shapes.counts[split][what] for split in SPLITS) for what in ("objects", "crops")}
    print(
        f"{shapes.path} {'already exists' if shapes.already_there else 'was generated'}: {shapes.arguments.train} "
        f"training and {shapes.arguments.val} validation scenes of {shapes.arguments.size} px with {total['objects']} "
        f"objects of {len(CLASSES)} classes, and {total['crops']} classification crops."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
