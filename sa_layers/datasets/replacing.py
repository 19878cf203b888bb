"""Put a finished folder in place in one step, whoever else is at it, and clear away what killed runs left behind.

A folder is built beside its destination under a hidden name and renamed when complete. Its builder holds a lock on it
for as long as it lives; the operating system drops the lock with the process, so an unlocked one is an orphan. A lock
on the parent folder, held for moments only, keeps creating, clearing and renaming apart. Where folders cannot be locked
(Windows, some network file systems) everything works but orphans stay.
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
def partial_folder(destination: Path) -> Iterator[Path]:
    """Give an empty hidden folder beside ``destination`` to build in; it is gone at the end unless put in place."""
    parent = destination.parent
    with contextlib.ExitStack() as stack:
        with _locked(parent):
            _clear_orphans(destination)
            partial = _hidden_name(destination)
            partial.mkdir()
            stack.callback(shutil.rmtree, partial, ignore_errors=True)
            stack.enter_context(_locked(partial))
        yield partial


def put_in_place(partial: Path, destination: Path, may_replace: Callable[[], bool]) -> bool:
    """Rename ``partial`` to ``destination``, replacing what is there.

    Args:
        partial: the finished folder.
        destination: where it goes; absent, or a folder.
        may_replace: asked under the lock when ``destination`` is a folder that is not empty, which may be new since
            the caller last looked. It may raise.

    Returns:
        Whether ``partial`` was put in place; False if ``may_replace`` said no.
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


def _clear_orphans(destination: Path) -> None:
    for sibling in list(destination.parent.iterdir()):
        if sibling.name.startswith(_prefix(destination)) and sibling.is_dir() and not sibling.is_symlink():
            with contextlib.suppress(OSError), _locked(sibling, wait=False) as locked:
                if locked:
                    shutil.rmtree(sibling, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a lock on a folder; yields whether it could be had."""
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
