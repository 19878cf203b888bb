"""The decorator of compiled loops: Numba's njit with its options."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

Loops = TypeVar("Loops", bound=Callable[..., object])


def compiled(loops: Loops) -> Loops:
    """Compile loops at their first call.

    Nothing is cached on disk: compiling takes a fraction of a second, whereas ``cache=True`` raises at import where
    neither the package nor the home folder can be written, and does not notice a change in another file.
    """
    return cast(Loops, njit(loops))
