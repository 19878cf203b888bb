"""Libraries of custom operators: the CPU kernels, compiled once for a runtime and kept in a cache."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import ExportError
from .runtimes import RUNTIMES

PACKAGE = Path(__file__).parents[2]
FLAGS = ["-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-g0", "-DSA_LAYERS_FLOAT32_ONLY"]
KERNELS = [
    "cpu/linear_training/binding.cpp",
    "cpu/pairwise_attention/binding.cpp",
    "cpu/patchwise_attention/binding.cpp",
    "cpu/simd/capability.cpp",
    "runtimes/operators.cpp",
]


def custom_operators_library(runtime: str = "onnxruntime") -> Path:
    """Return the library of the custom operators, which is compiled when it is first needed.

    The library needs neither torch nor Python, so it can be copied to where the program is deployed. It has kernels for
    every instruction set. Compiling it takes a while and needs a C++ compiler. It is kept in ``~/.cache/sa_layers``, or
    in the folder that the environment variable ``SA_LAYERS_CACHE`` names.

    Args:
        runtime: 'onnxruntime' (default) or 'openvino'. OpenVINO's package has all headers. onnxruntime's C header is
            searched for in the folder that the environment variable ``SA_LAYERS_ONNXRUNTIME_INCLUDE`` names, in the
            include folders of the system and of a conda environment, and in the package amd-quark.

    Raises:
        ExportError: The runtime is unknown; its package, its header or a C++ compiler is missing; or compiling fails.

    Example:
        >>> custom_operators_library("tensorrt")
        Traceback (most recent call last):
        sa_layers.export.errors.ExportError: runtime must be one of onnxruntime, openvino, got 'tensorrt'
    """
    if runtime not in RUNTIMES:
        raise ExportError(f"runtime must be one of {', '.join(RUNTIMES)}, got {runtime!r}")
    given, compiler, folder = RUNTIMES[runtime](), _compiler(), sources()
    version = _run([*compiler, "--version"], "the C++ compiler does not run")
    texts = [path.read_bytes() for path in (*sorted(folder.glob("*.h")), *_files(folder))]
    library = _cache() / f"{runtime}-{_digest([version, repr(given), *FLAGS], texts)}.so"
    if not library.is_file():
        command = [*compiler, *FLAGS, f"-I{folder}", f"-I{folder / 'runtimes'}"]
        commands = [[*command, "-c", str(folder / name)] for name in KERNELS]
        commands.append([*command, f"-isystem{given.headers}", "-c", str(folder / "runtimes" / f"{runtime}.cpp")])
        _build(library, compiler, commands, given.libraries)
    return library


def sources() -> Path:
    """The folder csrc: that of the checkout or, in an installed package, a copy.

    Raises:
        ExportError: The package was installed without it.
    """
    for folder in (PACKAGE / ".csrc", PACKAGE.parent / "csrc"):
        if (folder / "runtimes").is_dir():
            return folder
    raise ExportError(f"{PACKAGE} lacks the sources of the kernels, which the wheel contains: install sa-layers again")


def _files(folder: Path) -> Iterator[Path]:
    """The files of the parts of csrc that a library is compiled from, in a fixed order."""
    for part in ("cpu", "operands", "runtimes"):
        yield from sorted(path for path in (folder / part).rglob("*") if path.suffix in (".h", ".cpp"))


def _build(library: Path, compiler: Sequence[str], commands: Sequence[Sequence[str]], linked: Sequence[Path]) -> None:
    """Run the commands that compile in parallel, and link. Several processes may build the same library."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as name, ThreadPoolExecutor(os.cpu_count()) as pool:
        folder, failure = Path(name), f"compiling {library.name} failed"
        objects = [str(folder / f"{number}.o") for number in range(len(commands))]
        pairs = zip(commands, objects, strict=True)
        jobs = [pool.submit(_run, [*command, "-o", path], failure) for command, path in pairs]
        for job in jobs:
            job.result()
        partial = folder / library.name
        found = [argument for path in linked for argument in (str(path), f"-Wl,-rpath,{path.parent}")]
        _run([*compiler, "-shared", "-o", str(partial), *objects, *found], failure)
        partial.replace(library)


def _run(command: Sequence[str], failure: str) -> str:
    """Run a command and return its output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        reason = next((line for line in lines if "error" in line), lines[-1])
        raise ExportError(f"{failure}: {reason[:300]}")
    return done.stdout


def _compiler() -> list[str]:
    compiler = shlex.split(os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++")
    if shutil.which(compiler[0]) is None:
        raise ExportError(f"custom operators are compiled, but no C++ compiler was found ({compiler[0]!r}): set CXX")
    return compiler


def _cache() -> Path:
    named = os.environ.get("SA_LAYERS_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "sa_layers").expanduser()


def _digest(texts: Iterable[str], files: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in (*(text.encode() for text in texts), *files):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]
