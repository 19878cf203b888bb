"""Export of networks and OpenMMLab models to programs that run without this library."""

from .band import why_not_banded
from .errors import ExportError
from .formats import FORMATS, export, find, load
from .models import load_openmmlab, make_network
from .verification import verify

__all__ = [
    "FORMATS",
    "ExportError",
    "export",
    "find",
    "load",
    "load_openmmlab",
    "make_network",
    "verify",
    "why_not_banded",
]
