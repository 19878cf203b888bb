"""The CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer, with scratch memory full of 0xff."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch.utils.cpp_extension import include_paths, library_paths

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "build" / "sanitized"
COMPILER = shlex.split(os.environ.get("CXX", "g++"))
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# Without a frame pointer, reports have no stack; more optimisation takes longer to compile than it saves.
FLAGS = [
    "-std=c++17",
    "-O1",
    "-g1",
    "-fno-omit-frame-pointer",
    "-fPIC",
    "-w",
    "-DTORCH_TARGET_VERSION=0x020a000000000000",
]
FLAGS += ["-DSA_LAYERS_FILL_SCRATCH", *SANITIZE]


def build() -> Path:
    """Compiles what has changed since the last call, and returns a folder to import sa_layers from."""
    package = FOLDER / "sa_layers"
    package.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for item in (REPOSITORY / "sa_layers").iterdir():
            link = package / item.name
            if item.suffix != ".so" and not link.is_symlink():
                link.symlink_to(item)
        sources = sorted([*(REPOSITORY / "csrc").glob("*.cpp"), *(REPOSITORY / "csrc" / "cpu").glob("*/*.cpp")])
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            objects = list(pool.map(compile_source, sources))
        library = package / "kernels.so"
        if not is_newer(library, objects):
            libraries = [f"-L{path}" for path in library_paths()]
            run(
                [
                    *COMPILER,
                    "-shared",
                    *SANITIZE,
                    *objects,
                    *libraries,
                    "-ltorch",
                    "-ltorch_cpu",
                    "-lc10",
                    "-o",
                    library,
                ]
            )
    return FOLDER


def compile_source(source: Path) -> Path:
    """Compiles one file, unless its object is newer than everything that it includes."""
    target = FOLDER / f"{source.parent.name}-{source.stem}.o"
    dependencies = target.with_suffix(".d")
    if dependencies.is_file():
        read = dependencies.read_text().replace("\\\n", " ").split(":", 1)[1].split()
        if is_newer(target, [*map(Path, read), Path(__file__)]):
            return target
    includes = [f"-I{REPOSITORY / 'csrc'}", *(f"-isystem{path}" for path in include_paths())]
    run([*COMPILER, *FLAGS, *includes, "-MMD", "-MF", dependencies, "-c", source, "-o", target])
    return target


def is_newer(target: Path, sources: list[Path]) -> bool:
    """Whether a file exists and is newer than others, which exist too."""
    if not target.is_file() or not all(source.is_file() for source in sources):
        return False
    return all(source.stat().st_mtime <= target.stat().st_mtime for source in sources)


def run(command: list[str | Path]) -> None:
    """Runs the compiler."""
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(map(str, command))} failed:\n{done.stderr[-4000:]}")


def environment() -> dict[str, str]:
    """What a Python process needs to load the library; torch leaks, and throws through libstdc++ that asan must see."""
    found = [subprocess.check_output([*COMPILER, f"-print-file-name={name}"], text=True).strip() for name in LIBRARIES]
    return {
        "LD_PRELOAD": " ".join(found),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:max_allocation_size_mb=8192",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


LIBRARIES = ("libasan.so", "libubsan.so", "libstdc++.so.6")
