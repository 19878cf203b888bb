"""Compiles the custom operators of onnxruntime and OpenVINO into the cache, so that tests need not.

Prints why a library cannot be compiled. Its tests are then skipped.
"""

from __future__ import annotations

from sa_layers.export import ExportError, custom_operators_library
from sa_layers.export.custom_operators.runtimes import RUNTIMES

if __name__ == "__main__":
    for runtime in RUNTIMES:
        try:
            print(custom_operators_library(runtime))
        except ExportError as error:
            print(f"{runtime}: {error}")
