"""Writing of files: a file gets its name when it is complete, and devices and pipes are written to."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ReportedError


class OutputError(ReportedError, OSError):
    """A file cannot be written. The message names the file and the reason."""


@contextmanager
def output_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the path of a temporary file to write, which becomes ``path`` when the block ends.

    The temporary file has the same name, in a temporary folder next to ``path``. It is renamed at the end of the block,
    so an existing file is replaced only by a complete one, and stays as it was if writing fails. It keeps its
    permissions, and a symbolic link keeps pointing to it. If ``path`` is a device or a pipe, such as /dev/stdout, the
    content is written to it instead. Files that the block writes next to the temporary file are renamed, too.

    Args:
        path: File to write.

    Raises:
        OutputError: The file cannot be written. Every ``OSError`` of the block becomes one, so the block should only
            write.

    Example:
        >>> folder = tempfile.TemporaryDirectory()
        >>> with output_file(f"{folder.name}/results.txt") as partial:
        ...     _ = partial.write_text("all of it")
        >>> Path(folder.name, "results.txt").read_text()
        'all of it'
        >>> folder.cleanup()
    """
    destination = Path(path)
    check_output(destination)
    try:
        if _is_stream(destination):
            with tempfile.TemporaryDirectory() as folder:
                yield (partial := Path(folder, destination.name))
                _write_through(partial, destination)
            return
        target = destination.resolve()  # the target of a symbolic link is replaced, not the link
        with tempfile.TemporaryDirectory(prefix=".sa_layers-", dir=target.parent) as folder:
            yield (partial := Path(folder, target.name))
            if target.exists():
                shutil.copymode(target, partial)
            for sibling in Path(folder).iterdir():
                if sibling != partial:
                    sibling.replace(target.with_name(sibling.name))
            partial.replace(target)
    except (BrokenPipeError, OutputError):
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def check_output(path: str | os.PathLike[str], make_folder: bool = False) -> None:
    """Check that a file can be written, before the work is done whose results it is for.

    Args:
        path: File to write.
        make_folder: Whether its folder is going to be created. Defaults to False, it has to exist.

    Raises:
        OutputError: The path is a folder, a file that is not writable, or in a folder that does not exist.
    """
    path = Path(path)
    try:
        obstacle = _why_not(path, make_folder)
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: null characters; RuntimeError: cyclic links
        obstacle = getattr(error, "strerror", None) or str(error)
    if obstacle is not None:
        raise OutputError(f"cannot write {path}: {obstacle}")


def make_parent(path: Path) -> None:
    """Create the folder of a file.

    Raises:
        OutputError: It cannot be created.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _why_not(path: Path, make_folder: bool) -> str | None:
    if path.exists():
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return "it is a folder"
        if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
            return "it is neither a file, a pipe nor a character device"
        return None if os.access(path, os.W_OK) else "it is not writable"
    folder = path.resolve().parent
    while make_folder and not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder if make_folder else path.parent} is not a folder"
    return None if os.access(folder, os.W_OK) else f"the folder {folder} is not writable"


def _is_stream(path: Path) -> bool:
    """Whether to write to what is there: a device, a pipe, or an open file by its number, as in /dev/stdout."""
    if os.path.abspath(path).startswith(("/dev/fd/", "/dev/std", "/proc/")):
        return True
    return path.exists() and not stat.S_ISREG(path.stat().st_mode)


def _write_through(source: Path, destination: Path) -> None:
    sys.stdout.flush()  # what was printed comes first if the destination is the standard output
    with source.open("rb") as content, os.fdopen(os.open(destination, os.O_WRONLY | os.O_APPEND), "wb") as stream:
        shutil.copyfileobj(content, stream)
