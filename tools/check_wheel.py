"""Checks that a wheel runs on other machines than the one that built it.

It must have a manylinux tag. Its libraries may need only libtorch and the C and C++ runtimes, and no symbol of Python:
one wheel serves every Python. Needs ``readelf`` of binutils.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile, ZipFile

LIBRARIES = re.compile(
    r"lib(torch|torch_cpu|torch_cuda|c10|c10_cuda|c|m|dl|rt|pthread|gcc_s|stdc\+\+|gomp|mvec)\.so[.\d]*|ld-.*"
)


def problems(wheel: Path) -> list[str]:
    """Describe what is wrong with a wheel."""
    found = [] if "-manylinux_" in wheel.name else [f"{wheel.name} has no manylinux tag: run auditwheel repair"]
    with tempfile.TemporaryDirectory() as folder, ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".so")]
        if not names:
            found.append(f"{wheel.name} has no kernels")
        for name in names:
            path = archive.extract(name, folder)
            needed = re.findall(r"\(NEEDED\).*\[(.+)\]", _readelf("--dynamic", path))
            found += [f"{name} needs {library}" for library in needed if not LIBRARIES.fullmatch(library)]
            symbols = re.findall(r"UND (_?Py\w+)", _readelf("--dyn-syms", path))
            found += [f"{name} calls {symbol} of Python" for symbol in symbols]
    return found


def _readelf(option: str, path: str) -> str:
    command = ["readelf", "--wide", option, path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Check wheels; the result is the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL", help="file to check")
    wheels = parser.parse_args(arguments).wheels
    try:
        messages = [message for wheel in wheels for message in problems(wheel)]
    except (OSError, BadZipFile, subprocess.CalledProcessError) as error:
        parser.error(str(error))
    print(*messages or [f"{len(wheels)} wheels checked"], sep="\n")
    return int(bool(messages))


if __name__ == "__main__":
    sys.exit(main())
