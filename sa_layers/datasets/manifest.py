"""The manifest of a shapes folder: what was made, whether it is all there, and whether the folder is ours at all."""

import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sa_layers.datasets.classes import CLASSES, PALETTE
from sa_layers.datasets.errors import BrokenFolderError, ForeignFolderError

MARK = "sa_layers.datasets.shapes"
"""Stands near the top of the manifest and of the COCO files: a folder with it was made here and may be replaced."""

FORMAT_VERSION = 1
"""Raise it whenever the same arguments give other files, and folders of the old format are rebuilt."""

MANIFEST = "manifest.json"
SPLITS = ("train", "val")
_MARKED_FILES = (MANIFEST, "coco/instances_train.json", "coco/instances_val.json")
_OUR_FILES = re.compile(
    r"manifest\.json|coco/instances_(train|val)\.json|(images|label_maps)/(train|val)/\d{6}\.png"
    rf"|classification/(train|val)/({'|'.join(CLASSES)})/\d{{6}}_\d\.png"
)


@dataclass(frozen=True)
class Arguments:
    """What decides every byte of the data set."""

    train: int
    val: int
    size: int
    seed: int
    crop_size: int


@dataclass(frozen=True)
class ShapesFolder:
    """A complete shapes data set on disk.

    Attributes:
        path: its folder; the object itself also serves wherever a path does.
        arguments: what it was made with.
        counts: per split (``'train'``, ``'val'``) the numbers of ``'images'``, ``'objects'`` and ``'crops'``.
        photographs: per split the file names of the photographs behind the objects.
        already_there: ``make_shapes`` found it complete and made nothing.
    """

    path: Path
    arguments: Arguments
    counts: dict[str, dict[str, int]]
    photographs: dict[str, list[str]]
    already_there: bool = field(default=False, compare=False)

    def __fspath__(self) -> str:
        """Return the folder as text."""
        return str(self.path)


def folders() -> list[str]:
    """Name every folder that holds files, relative to the data set's, with forward slashes."""
    faces = [f"{face}/{split}" for face in ("images", "label_maps") for split in SPLITS]
    return [*faces, "coco", *(f"classification/{split}/{name}" for split in SPLITS for name in CLASSES)]


def write_manifest(
    root: Path, arguments: Arguments, counts: dict[str, dict[str, int]], photographs: dict[str, dict[str, str]]
) -> None:
    """Write the manifest of the files that are in ``root`` now; ``photographs`` gives name and SHA-256 per split."""
    content = {
        "made_by": MARK,  # first: see MARK
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
    """Read the manifest and hold it against the files: their number and total size in each folder.

    Raises:
        BrokenFolderError: it is not a complete shapes data set of this format.
    """
    try:
        content: dict[str, Any] = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        version = content["format_version"]
        if version != FORMAT_VERSION:
            raise BrokenFolderError(f"{root} has format version {version}, this sa-layers makes {FORMAT_VERSION}")
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
            raise BrokenFolderError(f"{root} lacks its folder {name} ({error.strerror})") from None
        if found != wanted:
            raise BrokenFolderError(f"{root / name} holds {_describe(found)}, its manifest says {_describe(wanted)}")
    return shapes


def refuse_foreign(root: Path) -> None:
    """Raise unless everything in ``root`` was made here, so that replacing it can lose nothing of anybody's.

    Raises:
        ForeignFolderError: the folder has no mark of ours, or holds a file that is not ours.
    """
    if not any(_is_marked(root / name) for name in _MARKED_FILES):
        raise ForeignFolderError(
            f"out must be a new or empty folder, or one made by {MARK}, and {root} is neither: it was left untouched"
        )
    for parent, folder_names, file_names in os.walk(root):
        links = [name for name in folder_names if os.path.islink(os.path.join(parent, name))]
        for name in [*file_names, *links]:
            inside = (Path(parent) / name).relative_to(root).as_posix()
            if not _OUR_FILES.fullmatch(inside):
                raise ForeignFolderError(
                    f"{root} must be rebuilt but also holds {inside}, which is not part of the data set: "
                    "move it away first; nothing was touched"
                )


def _is_marked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return f'"{MARK}"'.encode() in file.read(200)
    except OSError:
        return False


def _content_of(folder: Path) -> dict[str, int]:
    with os.scandir(folder) as entries:
        sizes = [entry.stat().st_size for entry in entries]
    return {"files": len(sizes), "bytes": sum(sizes)}


def _describe(content: Any) -> str:
    return f"{content['files']} files of {content['bytes']} bytes"
