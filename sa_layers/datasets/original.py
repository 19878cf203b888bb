"""Data sets that users obtain themselves: whether a folder is complete, and where the original comes from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from mmengine import fileio

from sa_layers.errors import ReportedError


class IncompleteDataError(ReportedError, FileNotFoundError):
    """A data set is missing or incomplete. The message says what is missing and where the original comes from."""

    exit_status = 2


@dataclass(frozen=True)
class Original:
    """The original of a data set.

    Its methods raise :class:`IncompleteDataError`. They read any storage that mmengine reads.

    Attributes:
        name: Name of the data set.
        source: What to download.
    """

    name: str
    source: str

    def require_folders(self, *folders: str | os.PathLike[str], backend_args: dict | None = None) -> None:
        """Check that folders exist."""
        for folder in folders:
            if not fileio.isdir(folder, backend_args=backend_args):
                raise self._incomplete(f"there is no folder {os.fspath(folder)}")

    def require_files(self, files: Iterable[str | os.PathLike[str]], backend_args: dict | None = None) -> None:
        """Check that files exist."""
        missing = [os.fspath(file) for file in files if not fileio.isfile(file, backend_args=backend_args)]
        if missing:
            others = f", nor {len(missing) - 1} more of its files" if len(missing) > 1 else ""
            raise self._incomplete(f"there is no file {missing[0]}{others}")

    def require_number(self, listed_in: str | os.PathLike[str], found: int, expected: int | None) -> None:
        """Check the number of images, unless any is accepted."""
        if expected is not None and found != expected:
            raise self._incomplete(f"{os.fspath(listed_in)} has {found} images instead of {expected}")

    def _incomplete(self, reason: str) -> IncompleteDataError:
        return IncompleteDataError(f"{self.name} is missing or incomplete: {reason}. Copy or link {self.source}")
