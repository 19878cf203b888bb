"""Errors of the shapes data set."""

from sa_layers.errors import ReportedError


class ShapesError(ReportedError):
    """Base class of the errors raised when the shapes data set is generated or verified."""


class ShapesArgumentError(ShapesError, ValueError):
    """An argument is out of range, or the output path cannot be used."""

    exit_status = 2


class ForeignFolderError(ShapesError):
    """The output folder contains files that this generator did not write. It is not changed."""

    exit_status = 2


class BrokenFolderError(ShapesError):
    """The folder is not a complete shapes data set."""


class MissingPackageError(ShapesError, ImportError):
    """A package of the ``datasets`` extra is not installed."""
