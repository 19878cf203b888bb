"""Atomic creation and replacement of a folder, safe with concurrent processes.

A folder is built under a hidden name next to its destination and renamed when it is complete. The process that builds
it holds a lock on it, which the operating system releases when the process ends. An unlocked hidden folder is therefore
left over from a killed process and is deleted. A short lock on the parent folder serialises creating, deleting and
renaming. Where folders cannot be locked (Windows, some network file systems), leftover folders are not deleted.
"""

import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl


@contextlib.contextmanager
def temporary_folder(destination: Path) -> Iterator[Path]:
    """Create an empty hidden folder next to ``destination``. It is deleted on exit unless it was renamed."""
    parent = destination.parent
    with contextlib.ExitStack() as stack:
        with _locked(parent):
            _delete_leftovers(destination)
            partial = _hidden_name(destination)
            partial.mkdir()
            stack.callback(shutil.rmtree, partial, ignore_errors=True)
            stack.enter_context(_locked(partial))
        yield partial


def rename_into_place(partial: Path, destination: Path, may_replace: Callable[[], bool]) -> bool:
    """Rename ``partial`` to ``destination``, replacing what is there.

    Args:
        partial: Completed folder.
        destination: New path of the folder. It may be an existing folder.
        may_replace: Function that decides whether a non-empty ``destination`` is replaced. It is called under the lock,
            because another process may have created the folder in the meantime. It may raise an error.

    Returns:
        Whether ``partial`` was renamed. False if ``may_replace`` returned False.
    """
    with _locked(destination.parent):
        if destination.is_dir() and any(destination.iterdir()):
            if not may_replace():
                return False
            discarded = _hidden_name(destination)
            destination.rename(discarded)
            try:
                partial.rename(destination)
            except OSError:
                discarded.rename(destination)
                raise
            shutil.rmtree(discarded, ignore_errors=True)
        else:
            if destination.is_dir():
                destination.rmdir()
            partial.rename(destination)
    return True


def _hidden_name(destination: Path) -> Path:
    return destination.with_name(f"{_prefix(destination)}{secrets.token_hex(4)}")


def _prefix(destination: Path) -> str:
    return f".{destination.name}.partial-"


def _delete_leftovers(destination: Path) -> None:
    for sibling in list(destination.parent.iterdir()):
        if sibling.name.startswith(_prefix(destination)) and sibling.is_dir() and not sibling.is_symlink():
            with contextlib.suppress(OSError), _locked(sibling, wait=False) as locked:
                if locked:
                    shutil.rmtree(sibling, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Lock a folder inside the block. Yield whether the lock was acquired."""
    if sys.platform == "win32":
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except OSError:
            locked = False
        yield locked
    finally:
        os.close(descriptor)
