"""Geometric objects over real photographs: one small data set to classify, detect and segment, made on the spot.

``python -m sa_layers.datasets.shapes OUT [--train N] [--val N] [--size PIXELS] [--seed S]`` makes::

    OUT/images/{train,val}/000000.png                      the scenes, shared by detection and segmentation
    OUT/label_maps/{train,val}/000000.png                  uint8 label maps: 0 background, 1 to 3 the classes
    OUT/coco/instances_{train,val}.json                    boxes and exact visible masks
    OUT/classification/{train,val}/<class>/000000_0.png    a crop round each object that is well visible
    OUT/manifest.json                                      arguments, counts, and what a complete folder holds

The same arguments give the same bytes. Scene i of a split depends on the seed and the size, not on how many are made.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

from sa_layers.datasets.checks import check_arguments, check_destination, check_packages, check_replaceable
from sa_layers.datasets.classes import CLASSES, LABELS, PALETTE
from sa_layers.datasets.errors import (
    BrokenFolderError,
    ForeignFolderError,
    MissingPackageError,
    ShapesArgumentError,
    ShapesError,
)
from sa_layers.datasets.manifest import SPLITS, Arguments, ShapesFolder, read_complete, refuse_foreign, write_manifest
from sa_layers.datasets.replacing import partial_folder, put_in_place

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
    """Make the shapes data set in ``out``, unless it is there already.

    The folder appears under its name only when complete. One that was made here but is broken, or was made with other
    arguments, is rebuilt; any other folder that is not empty is left untouched.

    Args:
        out: folder to make. Its parents are made too.
        train: number of training scenes, at least 5.
        val: number of validation scenes, at least 5; they use other photographs than training.
        size: side of a scene in pixels, 32 to 1024.
        seed: seed of everything random.
        crop_size: side of a classification crop in pixels, 16 to 1024.
        verbose: show a progress bar and say why a folder is rebuilt, on standard error.

    Returns:
        The complete data set: where it is, how it was made, how much it holds.

    Raises:
        ShapesArgumentError: an argument is out of range, or ``out`` cannot be a folder.
        ForeignFolderError: ``out`` holds something that was not made here.
        MissingPackageError: OpenCV, scikit-image or (with ``verbose``) rich is not installed.
        ShapesError: writing failed.

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
        print(f"{existing}: rebuilding it.", file=sys.stderr)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(destination) as partial:
            _build(partial, arguments, verbose)
            made = replace(read_complete(partial), path=destination)
            # Another process may have finished the same folder meanwhile; then its copy, equal to ours, stays.
            put_in_place(partial, destination, lambda: isinstance(_existing(destination, arguments), str))
            return made
    except OSError as error:
        raise ShapesError(f"out {destination} cannot be written: {error.strerror or error}") from error


def verify(out: str | os.PathLike[str]) -> ShapesFolder:
    """Check that ``out`` is a complete shapes data set, by the number and size of its files.

    Raises:
        BrokenFolderError: it is not; the message says what is wrong.

    Example:
        >>> import tempfile
        >>> shapes = make_shapes(tempfile.mkdtemp() + "/shapes", train=5, val=5, size=32)
        >>> verify(shapes) == shapes
        True
    """
    return read_complete(Path(out).expanduser().resolve())


def _existing(destination: Path, arguments: Arguments) -> ShapesFolder | str:
    """Return the data set if it is there, complete and made with these arguments; else what is wrong, '' if nothing."""
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
        reason = f"{destination} was made with " + ", ".join(
            f"{name} {getattr(shapes.arguments, name)} instead of {getattr(arguments, name)}"
            for name in names
            if getattr(shapes.arguments, name) != getattr(arguments, name)
        )
    except BrokenFolderError as error:
        reason = str(error)
    refuse_foreign(destination)
    return reason


def _build(root: Path, arguments: Arguments, verbose: bool) -> None:
    # Imported here, so that CLASSES, verify and the checks above work without OpenCV.
    try:
        import numpy as np

        from sa_layers.datasets.faces import SplitWriter
        from sa_layers.datasets.photographs import load_photographs, random_crop
        from sa_layers.datasets.scenes import draw_scene
    except ImportError as error:
        raise MissingPackageError(
            f"a package cannot be loaded ({error}): pip install --force-reinstall 'sa-layers[datasets]', "
            "and opencv-python-headless where libGL is what is missing"
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
    """Count from 0 to ``total`` - 1, with a progress bar if ``verbose``."""
    if not verbose:
        yield range(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:>5} scenes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress.track(range(total), description=split)


def _integer(text: str) -> int | str:
    """Leave what is no integer to ``_check_arguments``, whose sentence says what is allowed."""
    try:
        return int(text)
    except ValueError:
        return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed, 2 wrong arguments, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m sa_layers.datasets.shapes",
        description="Make a small data set of geometric objects over photographs: "
        "COCO boxes and masks, label maps, and classification crops.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("out", metavar="OUT", help="folder to make")
    parser.add_argument("--train", metavar="N", type=_integer, default=400, help="number of training scenes")
    parser.add_argument("--val", metavar="N", type=_integer, default=80, help="number of validation scenes")
    parser.add_argument("--size", metavar="PIXELS", type=_integer, default=128, help="side of a scene")
    parser.add_argument("--seed", metavar="S", type=_integer, default=0, help="seed of everything random")
    parser.add_argument(
        "--crop-size", metavar="PIXELS", type=_integer, default=64, help="side of a classification crop"
    )
    given = parser.parse_args(argv)
    try:
        shapes = make_shapes(
            given.out, given.train, given.val, given.size, given.seed, crop_size=given.crop_size, verbose=True
        )
    except (ShapesArgumentError, ForeignFolderError) as error:
        print(f"error: {error}.", file=sys.stderr)
        return 2
    except ShapesError as error:
        print(f"error: {error}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted: {given.out} is as it was before.", file=sys.stderr)
        return 130
    total = {what: sum(shapes.counts[split][what] for split in SPLITS) for what in ("objects", "crops")}
    print(
        f"{shapes.path} {'is there already' if shapes.already_there else 'is made'}: {shapes.arguments.train} training "
        f"and {shapes.arguments.val} validation scenes of {shapes.arguments.size} px with {total['objects']} objects "
        f"of {len(CLASSES)} classes, and {total['crops']} crops to classify."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
