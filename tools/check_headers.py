"""Checks that every header of csrc/ compiles by itself, so that it includes what it uses and editors can follow it.

    python tools/check_headers.py [HEADER ...]

Needs a C++ compiler and torch's headers, no GPU and no nvcc: headers of CUDA kernels are compiled for the host, with
the CUDA runtime of tests/cuda/host/include. With ``--nvcc``, nvcc compiles them, which takes a few seconds each.
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


def command(header: Path, torch_headers: Path, nvcc: str | None = None) -> list[str]:
    """Return the command that compiles a header by itself: a source file on standard input that only includes it."""
    is_cuda = header.is_relative_to(CSRC / "cuda")
    includes = [f"-I{CSRC}", f"-isystem{torch_headers}"]
    if is_cuda and nvcc:
        return [nvcc, "-std=c++17", "-x", "cu", "-arch=sm_90", "-cubin", "-o", os.devnull, *includes, str(header)]
    if is_cuda:  # the emulation of the CUDA runtime needs C++20
        includes += [f"-isystem{HOST_CUDA}", "-std=c++20", "-Wno-unknown-pragmas", "-DUSE_CUDA"]
    else:
        includes += ["-std=c++17"]
    return [*COMPILER, *FLAGS, *includes, "-x", "c++", "-"]


def complaint(header: Path, torch_headers: Path, nvcc: str | None = None) -> str:
    """Compile a header by itself and return what the compiler says: nothing if all is well."""
    source = f'#include "{header.relative_to(CSRC)}"\n'
    done = subprocess.run(command(header, torch_headers, nvcc), input=source, capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def main(arguments: list[str] | None = None) -> int:
    """Check the headers; the result is the exit status."""
    parser = argparse.ArgumentParser(description="Check that every header of csrc/ compiles by itself.")
    parser.add_argument("headers", nargs="*", type=Path, help="the headers to check; all by default")
    parser.add_argument("--nvcc", action="store_true", help="compile the headers of csrc/cuda with nvcc")
    options = parser.parse_args(arguments)
    if shutil.which(COMPILER[0]) is None:
        print(f"skipped: no C++ compiler was found ({COMPILER[0]!r})")
        return 0
    if (torch := importlib.util.find_spec("torch")) is None or torch.origin is None:
        print("skipped: torch is not installed")
        return 0
    nvcc = (shutil.which("nvcc") or sys.exit("nvcc was not found")) if options.nvcc else None
    torch_headers = Path(torch.origin).parent / "include"
    chosen = [header.resolve() for header in options.headers] or headers()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        complaints = list(pool.map(lambda header: complaint(header, torch_headers, nvcc), chosen))
    for header, text in zip(chosen, complaints, strict=True):
        if text:
            print(f"{header.relative_to(ROOT)} does not compile by itself:\n{text}")
    bad = sum(map(bool, complaints))
    print(f"{len(chosen) - bad} of {len(chosen)} headers compile by themselves")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
