"""Errors of the benchmarks."""

from ..errors import ReportedError


class BenchmarkError(ReportedError, RuntimeError):
    """A benchmark cannot run, or implementations disagree. The message gives the reason."""
