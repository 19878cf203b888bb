"""What all commands have in common: the types of their arguments, and how a failure is reported.

A wrong invocation ends with one sentence on standard error and an exit status other than 0. Errors that are bugs keep
their traceback; ``SA_LAYERS_TRACEBACK=1`` in the environment shows it for all.
"""

from __future__ import annotations

import argparse
import errno
import functools
import math
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ParamSpec

from .errors import ReportedError
from .extras import explain

Arguments = ParamSpec("Arguments")
TRACEBACK = "SA_LAYERS_TRACEBACK"
BROKEN_PIPE, INTERRUPTED = 128 + 13, 128 + 2  # what shells report for SIGPIPE and SIGINT
NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "Storage size calculation overflowed")


def command(extra: str | None = None) -> Callable[[Callable[Arguments, int]], Callable[Arguments, int]]:
    """Decorate the ``main`` function of a command.

    The decorated function returns the exit status that ``main`` returns. A failure that users can mend is reported in a
    sentence: a :class:`.ReportedError`, a file that cannot be read or written, a package that is not installed, too
    little memory. If nobody reads the output any more, as in ``... | head``, the command ends silently.

    Args:
        extra: Extra of sa-layers that installs what the command needs. Defaults to None.

    Example:
        >>> @command()
        ... def main(argv=None):
        ...     raise ReportedError("there is nothing to do")
        >>> main([])
        1
    """

    def decorate(main: Callable[Arguments, int]) -> Callable[Arguments, int]:
        @functools.wraps(main)
        def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
            try:
                return _run(main, *args, **kwargs)
            except BrokenPipeError:
                _discard_output()  # it may be noticed before everything is flushed
                return BROKEN_PIPE
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                return INTERRUPTED
            except Exception as error:
                sentence = None if os.environ.get(TRACEBACK) else describe(error, extra)
                if sentence is None:
                    raise
                print(f"error: {sentence}" + "." * (not sentence.endswith(".")), file=sys.stderr)
                return error.exit_status if isinstance(error, ReportedError) else 1

        return run

    return decorate


def _run(main: Callable[Arguments, int], *args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
    """Call ``main`` and write what it printed, so that an error of the output is one of the command."""
    try:
        return main(*args, **kwargs)
    finally:
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError:
            _discard_output()
            raise


def _discard_output() -> None:
    """Redirect standard output to the null device, lest Python complain when it flushes at exit."""
    with suppress(AttributeError, OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def describe(error: Exception, extra: str | None = None) -> str | None:
    """Describe in a sentence an error that users can mend, or return None for one that may be a bug.

    Example:
        >>> describe(FileNotFoundError(2, "No such file or directory", "san10.pth"))
        'san10.pth: No such file or directory'
    """
    lines = str(error).strip().splitlines()
    first = lines[0] if lines else type(error).__name__
    if isinstance(error, ReportedError):
        return first
    if isinstance(error, ImportError):
        return explain(error, extra)
    if isinstance(error, OSError):
        reason = error.strerror or first
        if error.filename is not None:
            return f"{os.fsdecode(error.filename)}: {reason}"
        return f"cannot write the output: {reason}" if error.errno in NOT_WRITTEN else reason
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in first for w in OUT_OF_MEMORY)):
        return f"there is not enough memory: {first}"
    return None


def integer(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Return an argument type: an integer from ``minimum`` to ``maximum``.

    Example:
        >>> integer(1)("8")
        8
        >>> integer(1, 4)("8")
        Traceback (most recent call last):
        ...
        argparse.ArgumentTypeError: must be an integer from 1 to 4, got '8'
    """
    allowed = f"an integer of at least {minimum}" if maximum is None else f"an integer from {minimum} to {maximum}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum or (maximum is not None and value > maximum):
            raise argparse.ArgumentTypeError(f"must be {allowed}, got {text!r}")
        return value

    return parse


def integers(minimum: int, maximum: int | None = None, counts: Sequence[int] = ()) -> Callable[[str], tuple[int, ...]]:
    """Return an argument type: integers separated by commas, as many as one of ``counts`` or any number.

    Example:
        >>> integers(1)("3,7,7")
        (3, 7, 7)
    """
    parse_one = integer(minimum, maximum)
    values = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
    allowed = f"{' or '.join(map(str, counts))} integers {values}, separated by commas".lstrip()

    def parse(text: str) -> tuple[int, ...]:
        parts = text.split(",")
        try:
            if counts and len(parts) not in counts:
                raise argparse.ArgumentTypeError
            return tuple(map(parse_one, parts))
        except argparse.ArgumentTypeError:
            raise argparse.ArgumentTypeError(f"must be {allowed}, got {text!r}") from None

    return parse


def number(minimum: float) -> Callable[[str], float]:
    """Return an argument type: a finite number of at least ``minimum``."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not minimum <= value < math.inf:
            raise argparse.ArgumentTypeError(f"must be a finite number of at least {minimum:g}, got {text!r}")
        return value

    return parse


def image_size(minimum: int, maximum: int) -> Callable[[str], tuple[int, int]]:
    """Return an argument type: the height and width of an image, such as 224x320."""
    parse_side = integer(minimum, maximum)

    def parse(text: str) -> tuple[int, int]:
        try:
            height, width = map(parse_side, text.split("x"))
        except (ValueError, argparse.ArgumentTypeError):
            allowed = f"HEIGHTxWIDTH with integers from {minimum} to {maximum}"
            raise argparse.ArgumentTypeError(f"must be {allowed}, got {text!r}") from None
        return height, width

    return parse
