"""Compiles the CUDA kernels with warnings as errors and tabulates the registers of each.

    python tools/check_cuda.py [ARCHITECTURE ...] [--only PATH ...]

Compiles for every architecture by default, and with --only just the files whose paths contain one of those given. Needs
nvcc but no GPU. Fails on a warning, and on a tiled kernel that spills registers.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
ARCHITECTURES = ("75", "80", "86", "90", "100", "120")
VARIANTS = {
    "attention": " tensor cores",
    "aggregation": " softmax",
    "projection": " pairs",
    "max": " norm",
}  # the variants that a bool template argument selects
TYPES = {"f": "float32", "d": "float64", "6__half": "float16", "13__nv_bfloat16": "bfloat16"}

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)'")
_SPILL = re.compile(r"(\d+) bytes spill stores")
_REGISTERS = re.compile(r"Used (\d+) registers")


class Kernel(NamedTuple):
    """What ptxas reports about one kernel on one architecture."""

    name: str
    architecture: str
    registers: int
    spilled_bytes: int

    @property
    def is_tiled(self) -> bool:
        """Whether this is one of the fast kernels, whose inner loops must not spill."""
        return "_tiles<" in self.name

    @property
    def spills(self) -> bool:
        """Whether more is spilled than may be: in banded kernels a few numbers wait in memory for the loops to end."""
        return self.is_tiled and self.spilled_bytes > (128 if self.name.startswith("banded") else 0)


def find_nvcc() -> Path | None:
    """The CUDA compiler: in CUDA_HOME, on the path, or where it is installed by default."""
    for folder in (os.environ.get("CUDA_HOME"), "/usr/local/cuda"):
        if folder and (nvcc := Path(folder, "bin", "nvcc")).is_file():
            return nvcc
    on_path = shutil.which("nvcc")
    return Path(on_path) if on_path else None


def compile_kernels(nvcc: Path, source: Path, architectures: tuple[str, ...]) -> list[Kernel]:
    """Compiles one source file and reads ptxas's report.

    Raises:
        subprocess.CalledProcessError: The compiler found an error or a warning, which it has printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        command: list[str | Path] = [nvcc, "-std=c++17", "-O3", "-I", ROOT / "csrc", "-c", source]
        command += ["-Werror", "all-warnings", "-Xptxas", "-v", "-Xcompiler", "-fPIC,-Wall,-Wextra"]
        command += [f"-gencode=arch=compute_{number},code=sm_{number}" for number in architectures]
        command += ["-o", Path(folder, "kernels.o")]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        done.check_returncode()
    return parse_report(done.stderr)


def parse_report(report: str) -> list[Kernel]:
    """Reads ptxas's verbose report: three facts a kernel, on lines of their own."""
    kernels, name, architecture, spilled = [], "", "", 0
    for line in report.splitlines():
        if match := _ENTRY.search(line):
            name, architecture = readable(match[1]), match[2]
        elif match := _SPILL.search(line):
            spilled = int(match[1])
        elif match := _REGISTERS.search(line):
            kernels.append(Kernel(name, architecture, int(match[1]), spilled))
    return kernels


def readable(symbol: str) -> str:
    """The kernel's name and template arguments, from its mangled symbol."""
    match = re.search(r"4cuda\d+([a-z_]+)I(?:Li\d+E)?(f|d|6__half|13__nv_bfloat16)", symbol)
    if match is None:
        return symbol
    name, element = match.groups()
    variants = [variant for word, variant in VARIANTS.items() if word in name] if "Lb1E" in symbol else []
    arguments = ", ".join([TYPES[element], *re.findall(r"Li(\d+)E", symbol)])
    return f"{name}<{arguments}>{''.join(variants)}"


def table(kernels: list[Kernel]) -> str:
    """Registers of every kernel on every architecture; spilled bytes follow a plus sign."""
    architectures = list(dict.fromkeys(kernel.architecture for kernel in kernels))
    cells: dict[str, dict[str, str]] = {}
    for kernel in kernels:
        spill = f"+{kernel.spilled_bytes}" if kernel.spilled_bytes else ""
        cells.setdefault(kernel.name, {})[kernel.architecture] = f"{kernel.registers}{spill}"
    width = max(map(len, cells))
    lines = [" " * width + "".join(f"{'sm_' + name:>8}" for name in architectures)]
    for name, row in sorted(cells.items()):
        lines.append(name.ljust(width) + "".join(f"{row.get(item, ''):>8}" for item in architectures))
    return "\n".join(lines)


def main(architectures: tuple[str, ...], only: tuple[str, ...] = ("",)) -> int:
    """Checks the kernels in files whose paths contain one of `only`. Returns the exit status."""
    nvcc = find_nvcc()
    if nvcc is None:
        print("skipped: no CUDA compiler (nvcc) was found")
        return 0
    kernels = [
        kernel
        for source in sorted((ROOT / "csrc" / "cuda").rglob("*.cu"))
        if any(part in str(source) for part in only)
        for kernel in compile_kernels(nvcc, source, architectures)
    ]
    print(table(kernels))
    spilling = [kernel for kernel in kernels if kernel.spills]
    for kernel in spilling:
        print(f"{kernel.name} spills {kernel.spilled_bytes} bytes on sm_{kernel.architecture}")
    return 1 if spilling else 0


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("architectures", nargs="*", metavar="ARCHITECTURE", default=ARCHITECTURES)
    arguments.add_argument("--only", nargs="+", default=("",))
    given = arguments.parse_args()
    if unknown := [name for name in given.architectures if not name.isdigit()]:
        arguments.error(f"ARCHITECTURE must be a number such as 90, got {unknown[0]!r}")
    sys.exit(main(tuple(given.architectures), tuple(given.only)))
