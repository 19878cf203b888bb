"""The ledger: a file with one JSON line for each finished run.

A line has the definition of the run (:meth:`.plan.Run.definition`), its ``results``, which are the same when the run is
repeated on the same machine, and what was ``measured``: machine, versions, time.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sa_layers.output_file import make_parent, output_file

from .errors import LedgerError

Record = dict[str, Any]


class Ledger:
    """A ledger, which several processes may read and extend at once.

    Args:
        path: The file. It need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Record]:
        """Return all lines.

        Raises:
            LedgerError: A line is not a JSON object.
        """
        records = []
        for number, line in enumerate(self.path.read_text().splitlines() if self.path.exists() else (), start=1):
            try:
                records.append(dict(json.loads(line)))
            except (ValueError, TypeError) as error:
                raise LedgerError(f"line {number} of {self.path} is not a JSON object: {error}") from error
        return records

    def append(self, record: Record) -> None:
        """Add a line. A process that is killed meanwhile leaves the file as it was."""
        make_parent(self.path)
        with self._locked():
            records = [*self.read(), record]
            with output_file(self.path) as partial:
                partial.write_text("".join(json.dumps(each, allow_nan=False) + "\n" for each in records))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self.path.with_name(f".{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
