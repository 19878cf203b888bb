"""Export of networks and OpenMMLab models to programs that run without this package."""

from .band import why_not_banded
from .custom_operators import custom_operators_library, register_custom_operators, why_not_custom
from .errors import ExportError
from .formats import FORMATS, export, find, load
from .models import load_openmmlab, make_network
from .verification import verify

__all__ = [
    "FORMATS",
    "ExportError",
    "custom_operators_library",
    "export",
    "find",
    "load",
    "load_openmmlab",
    "make_network",
    "register_custom_operators",
    "verify",
    "why_not_banded",
    "why_not_custom",
]
