"""A budget of time: a part begins only if it is expected to end in time."""

from __future__ import annotations

import math
import time


class Budget:
    """A budget of minutes that begins when it is made.

    Args:
        minutes: The budget. Defaults to None, for no limit.

    Example:
        >>> budget = Budget(1)
        >>> budget.allows("epoch")
        True
        >>> budget.note("epoch", 90)
        >>> budget.allows("epoch")
        False
    """

    def __init__(self, minutes: float | None = None) -> None:
        self._end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._longest: dict[str, float] = {}

    def allows(self, kind: str) -> bool:
        """Whether a part that takes as long as the longest of its kind so far would end in time."""
        return time.monotonic() + self._longest.get(kind, 0.0) <= self._end

    def note(self, kind: str, seconds: float) -> None:
        """Remember how long a part took."""
        self._longest[kind] = max(self._longest.get(kind, 0.0), seconds)
