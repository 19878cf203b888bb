"""What can go wrong when the shapes data set is made: each error is one sentence that says what to do."""


class ShapesError(Exception):
    """Base of every error that making or verifying the shapes data set raises on purpose."""


class ShapesArgumentError(ShapesError, ValueError):
    """An argument is out of range, or the output path cannot be used."""


class ForeignFolderError(ShapesError):
    """The output folder holds files that this generator did not make, so it is left untouched."""


class BrokenFolderError(ShapesError):
    """The folder is not a complete shapes data set."""


class MissingPackageError(ShapesError, ImportError):
    """A package of the ``datasets`` extra is not installed."""
