"""Errors of the experiments."""

from sa_layers.errors import ReportedError


class ExperimentError(ReportedError):
    """An experiment cannot be run. The message says why."""


class DataError(ExperimentError):
    """The folder of images is missing or incomplete. The message says where the images come from."""


class LedgerError(ExperimentError):
    """The ledger cannot be read. The message names the line."""
