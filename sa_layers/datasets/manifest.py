"""The manifest of a shapes folder, by which a folder is identified and checked for completeness."""

import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sa_layers.datasets.classes import CLASSES, PALETTE
from sa_layers.datasets.errors import BrokenFolderError, ForeignFolderError

MARKER = "sa_layers.datasets.shapes"
"""Text near the top of the manifest and the COCO files. It identifies folders that the generator may replace."""

FORMAT_VERSION = 1
"""Increment when the files for the same arguments change. Folders of older versions are then regenerated."""

MANIFEST = "manifest.json"
SPLITS = ("train", "val")
_MARKED_FILES = (MANIFEST, "coco/instances_train.json", "coco/instances_val.json")
_OUR_FILES = re.compile(
    r"manifest\.json|coco/instances_(train|val)\.json|(images|label_maps)/(train|val)/\d{6}\.png"
    rf"|classification/(train|val)/({'|'.join(CLASSES)})/\d{{6}}_\d\.png"
)


@dataclass(frozen=True)
class Arguments:
    """The arguments that determine the content of the data set."""

    train: int
    val: int
    size: int
    seed: int
    crop_size: int


@dataclass(frozen=True)
class ShapesFolder:
    """A complete shapes data set on disk.

    Attributes:
        path: Folder of the data set. The object itself can be used as a path as well.
        arguments: Arguments with which it was generated.
        counts: Number of ``'images'``, ``'objects'`` and ``'crops'`` for each split (``'train'``, ``'val'``).
        photographs: File names of the background photographs for each split.
        already_there: Whether ``make_shapes`` found a complete data set and generated nothing.
    """

    path: Path
    arguments: Arguments
    counts: dict[str, dict[str, int]]
    photographs: dict[str, list[str]]
    already_there: bool = field(default=False, compare=False)

    def __fspath__(self) -> str:
        """Return the folder as a string."""
        return str(self.path)


def folders() -> list[str]:
    """Return the folders that contain files, relative to the data set's folder, with forward slashes."""
    pictures = [f"{kind}/{split}" for kind in ("images", "label_maps") for split in SPLITS]
    return [*pictures, "coco", *(f"classification/{split}/{name}" for split in SPLITS for name in CLASSES)]


def write_manifest(
    root: Path, arguments: Arguments, counts: dict[str, dict[str, int]], photographs: dict[str, dict[str, str]]
) -> None:
    """Write the manifest of the files in ``root``. ``photographs`` maps names to SHA-256 sums for each split."""
    content = {
        "made_by": MARKER,  # first: see MARKER
        "format_version": FORMAT_VERSION,
        "arguments": asdict(arguments),
        "classes": CLASSES,
        "palette": PALETTE,
        "counts": counts,
        "photographs": photographs,
        "folders": {name: _content_of(root / name) for name in folders()},
    }
    (root / MANIFEST).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_complete(root: Path) -> ShapesFolder:
    """Read the manifest and compare the number and the total size of the files in each folder.

    Raises:
        BrokenFolderError: If ``root`` is not a complete shapes data set of this format version.
    """
    try:
        content: dict[str, Any] = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        version = content["format_version"]
        if version != FORMAT_VERSION:
            raise BrokenFolderError(f"{root} has format version {version}, but this version is {FORMAT_VERSION}")
        shapes = ShapesFolder(
            path=root,
            arguments=Arguments(**content["arguments"]),
            counts=content["counts"],
            photographs={split: list(names) for split, names in content["photographs"].items()},
        )
        expected = {name: content["folders"][name] for name in folders()}
    except FileNotFoundError:
        raise BrokenFolderError(f"{root} has no {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenFolderError(f"{root / MANIFEST} is damaged ({type(error).__name__}: {error})") from None
    for name, wanted in expected.items():
        try:
            found = _content_of(root / name)
        except OSError as error:
            raise BrokenFolderError(f"{root} has no folder {name} ({error.strerror})") from None
        if found != wanted:
            raise BrokenFolderError(
                f"{root / name} contains {_describe(found)}, but the manifest lists {_describe(wanted)}"
            )
    return shapes


def check_ours(root: Path) -> None:
    """Check that ``root`` contains only files of a shapes data set, so that replacing it loses no other data.

    Raises:
        ForeignFolderError: If the folder is not a shapes data set or contains another file.
    """
    if not any(_is_marked(root / name) for name in _MARKED_FILES):
        raise ForeignFolderError(
            f"out must be a new or empty folder or one made by {MARKER}, but {root} is neither: it was left untouched"
        )
    for parent, folder_names, file_names in os.walk(root):
        links = [name for name in folder_names if os.path.islink(os.path.join(parent, name))]
        for name in [*file_names, *links]:
            inside = (Path(parent) / name).relative_to(root).as_posix()
            if not _OUR_FILES.fullmatch(inside):
                raise ForeignFolderError(
                    f"{root} cannot be regenerated because it also contains {inside}, which is not part of the data "
                    "set: move this file first; nothing was changed"
                )


def _is_marked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return f'"{MARKER}"'.encode() in file.read(200)
    except OSError:
        return False


def _content_of(folder: Path) -> dict[str, int]:
    with os.scandir(folder) as entries:
        sizes = [entry.stat().st_size for entry in entries]
    return {"files": len(sizes), "bytes": sum(sizes)}


def _describe(content: Any) -> str:
    return f"{content['files']} files of {content['bytes']} bytes"
