"""Installs mmcv with its compiled operators: about four minutes on two cores instead of fourteen.

Run as ``python tools/build_mmcv.py`` by the Python of the environment that has torch, ninja and onedl-mmcv. Each of
mmcv's 78 C++ files spends most of its time parsing torch's headers, so these are precompiled once, by a wrapper around
the compiler that mmcv's own build calls. If that build fails, pip compiles mmcv the plain way.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

PACKAGE = "onedl-mmcv"
HEADERS = ("pytorch_cpp_helper.hpp", "pytorch_device_registry.hpp")  # mmcv's own, which nearly every file includes
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
# pip would take its cached wheel, which has no operators if it was built where torch is not visible.
INSTALL = (*PIP, "install", "--no-build-isolation", "--no-cache-dir", "--force-reinstall", "--no-deps")


def main() -> None:
    """Install the release of mmcv that is installed, with operators."""
    requirement = f"{PACKAGE}=={version(PACKAGE)}"
    try:
        with tempfile.TemporaryDirectory(prefix="mmcv-") as folder:
            install(requirement, Path(folder))
    except (OSError, subprocess.CalledProcessError, tarfile.TarError, ValueError) as error:
        print(f"build_mmcv: {error}; compiling without a precompiled header", file=sys.stderr)
    if not has_operators():
        subprocess.run([*INSTALL, "--no-binary", PACKAGE, requirement], check=True)
    if not has_operators():
        raise SystemExit("build_mmcv: mmcv was built, but `import torch, mmcv._ext` fails")


def install(requirement: str, folder: Path) -> None:
    """Install a wheel if pip finds one, else build the source distribution with a precompiled header."""
    download = (*PIP, "download", "--no-build-isolation", "--no-cache-dir", "--no-deps", "--dest", str(folder))
    subprocess.run([*download, requirement], check=True)
    (archive,) = folder.iterdir()
    if archive.suffix == ".whl":
        subprocess.run([*INSTALL, str(archive)], check=True)
        return
    with tarfile.open(archive) as opened:
        if hasattr(tarfile, "data_filter"):
            opened.extractall(folder, filter="data")
        else:
            opened.extractall(folder)
    (tree,) = (path for path in folder.iterdir() if path.is_dir())
    compiler = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
    wrapper = folder / "c++"
    command = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(folder), *shlex.split(compiler)]
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    wrapper.chmod(0o755)
    environment = {"MAX_JOBS": str(len(os.sched_getaffinity(0)))} | os.environ | {"CXX": str(wrapper)}
    subprocess.run([*INSTALL, str(tree)], env=environment, check=True)


def has_operators() -> bool:
    """Whether mmcv's extension can be imported."""
    command = [sys.executable, "-c", "import torch, mmcv._ext"]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


def compile_one(folder: Path, command: Sequence[str]) -> int:
    """Run a compiler; files of mmcv's are compiled with the precompiled header, which the first of them makes."""
    source = next((word for word in command if word.endswith(".cpp")), None)
    if source is None or "-c" not in command:
        return subprocess.run(command, check=False).returncode
    common = Path(source).resolve()
    while common.name != "csrc":
        if common == common.parent:  # not one of mmcv's files
            return subprocess.run(command, check=False).returncode
        common = common.parent
    header = folder / "precompiled.hpp"
    # Without debugging information, which would make the precompiled header larger and every file slower to compile.
    command = [*command, "-g0"]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not header.exists():
            header.write_text("".join(f'#include "{common / "common" / name}"\n' for name in HEADERS))
            subprocess.run(precompilation(command, header), check=False)
    return subprocess.run([*command, "-include", str(header)], check=False).returncode


def precompilation(command: Sequence[str], header: Path) -> list[str]:
    """Return the command that precompiles a header with the flags of another file's compilation."""
    words = iter(command)
    kept = []
    for word in words:
        if word in ("-o", "-MF", "-MT", "-MQ"):
            next(words)
        elif word not in ("-c", "-MMD", "-MD") and not word.endswith(".cpp"):
            kept.append(word)
    return [*kept, "-x", "c++-header", str(header), "-o", f"{header}.gch"]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(compile_one(Path(sys.argv[1]), sys.argv[2:]))
    main()
