"""Checks that every header of csrc/ compiles by itself, so that it includes what it uses and editors can follow it.

    python tools/check_headers.py [HEADER ...]

Needs a C++ compiler and torch's headers, but no GPU. Headers of CUDA kernels are compiled for the host, with the CUDA
runtime of tests/cuda/host/include. The headers that the emulation replaces need nvcc, and are skipped without it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
HOST_CUDA = ROOT / "tests" / "cuda" / "host" / "include"
COMPILER = shlex.split(os.environ.get("CXX", "c++"))
FLAGS = [
    "-std=c++17",
    "-fvisibility=hidden",
    "-fsyntax-only",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Werror",
    "-DTORCH_TARGET_VERSION=0x020a000000000000",
]


def headers() -> list[Path]:
    """List the headers of csrc/, of the CPU and of CUDA."""
    return sorted(path for suffix in ("*.h", "*.cuh") for path in CSRC.rglob(suffix))


def is_emulated(header: Path) -> bool:
    """Whether the emulation of CUDA on the host replaces a header."""
    return (HOST_CUDA / header.relative_to(CSRC)).is_file()


def command(header: Path, torch_headers: Path) -> list[str]:
    """Return the command that compiles what is on standard input: a source file that only includes the header."""
    if is_emulated(header):
        return ["nvcc", "-std=c++17", "-x", "cu", "-arch=sm_90", "-cubin", "-o", os.devnull, f"-I{CSRC}", "-"]
    includes = [f"-I{CSRC}", f"-isystem{torch_headers}"]
    if header.is_relative_to(CSRC / "runtimes"):  # has headers that stand in for torch's
        includes = [f"-I{CSRC}", f"-I{CSRC / 'runtimes'}"]
    if header.is_relative_to(CSRC / "cuda"):  # the emulation needs C++20
        includes = ["-std=c++20", "-Wno-unknown-pragmas", "-DUSE_CUDA", f"-I{HOST_CUDA}", *includes]
    return [*COMPILER, *FLAGS, *includes, "-x", "c++", "-"]


def complaint(header: Path, torch_headers: Path) -> str:
    """Compile a header by itself and return what the compiler says: nothing if all is well."""
    source = f'#include "{header.relative_to(CSRC)}"\n'
    done = subprocess.run(command(header, torch_headers), input=source, capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def main(arguments: list[str] | None = None) -> int:
    """Check the headers; the result is the exit status."""
    parser = argparse.ArgumentParser(description="Check that every header of csrc/ compiles by itself.")
    parser.add_argument("headers", nargs="*", type=Path, metavar="HEADER", help="the headers to check; all by default")
    options = parser.parse_args(arguments)
    if shutil.which(COMPILER[0]) is None:
        print(f"skipped: no C++ compiler was found ({COMPILER[0]!r})")
        return 0
    if (torch := importlib.util.find_spec("torch")) is None or torch.origin is None:
        print("skipped: torch is not installed")
        return 0
    torch_headers = Path(torch.origin).parent / "include"
    chosen = [header.resolve() for header in options.headers] or headers()
    if unknown := [header for header in chosen if not (header.is_file() and header.is_relative_to(CSRC))]:
        parser.error(f"HEADER must be a file in {CSRC}, got {unknown[0]}")
    if shutil.which("nvcc") is None:
        chosen = [header for header in chosen if not is_emulated(header)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        complaints = list(pool.map(lambda header: complaint(header, torch_headers), chosen))
    for header, text in zip(chosen, complaints, strict=True):
        if text:
            print(f"{header.relative_to(ROOT)} does not compile by itself:\n{text}")
    bad = sum(map(bool, complaints))
    print(f"{len(chosen) - bad} of {len(chosen)} headers compile by themselves")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
