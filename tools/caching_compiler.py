"""A C++ compiler that compiles the same source once: the tests install several times what takes a minute to compile.

``python tools/caching_compiler.py CACHE WRAPPER`` writes a script to use as CXX and prints its path. The script keeps
each object under a digest of the preprocessed source and of the flags, without the paths of folders, which differ
between environments. Everything but compilations goes to the compiler: that of CXX, or else the one of Python's build.
Objects that were not used for a week are removed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

FOLDERS = re.compile(rb'(?<=")/[^"\n]*/(?=(?:torch/include|csrc)/)')
WEEK = 7 * 24 * 3600


def write_wrapper(cache: Path, wrapper: Path) -> str:
    """Write the script and return its path; where there is no compiler, return the compiler's name."""
    compiler = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
    if shutil.which(shlex.split(compiler)[0]) is None:
        return compiler
    for folder in (cache, wrapper.parent):
        folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-I", "-S", __file__, "--", str(cache.resolve()), *shlex.split(compiler)]
    partial = wrapper.with_suffix(f".{os.getpid()}")  # another test run may be starting the script
    partial.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    partial.chmod(0o755)
    partial.replace(wrapper)
    return str(wrapper.resolve())


def compile_once(cache: Path, command: Sequence[str]) -> int:
    """Compile, or copy what was compiled before; return the exit code."""
    if "-c" not in command or "-o" not in command:
        return subprocess.run(command, check=False).returncode
    output = command[command.index("-o") + 1]
    without_output = [word for word in command if word not in ("-c", "-o", output)]
    preprocessed = subprocess.run([*without_output, "-E", "-P"], stdout=subprocess.PIPE, check=False)
    if preprocessed.returncode:
        return preprocessed.returncode
    flags = [word for word in without_output if word.startswith("-") and not word.startswith(("-I", "-M"))]
    binary = os.stat(shutil.which(command[0]) or command[0])
    key = f"{command[0]} {binary.st_size} {binary.st_mtime_ns} {' '.join(flags)}".encode()
    kept = cache / f"{hashlib.sha256(key + FOLDERS.sub(b'', preprocessed.stdout)).hexdigest()}.o"
    if kept.is_file():
        os.utime(kept)
        shutil.copyfile(kept, output)
        return 0
    status = subprocess.run(command, check=False).returncode
    if status == 0:
        partial = kept.with_suffix(f".{os.getpid()}")
        shutil.copyfile(output, partial)
        partial.replace(kept)
        remove_old(cache)
    return status


def remove_old(cache: Path) -> None:
    """Remove the objects that were not used for a week."""
    for path in cache.iterdir():
        try:
            if path.stat().st_mtime < time.time() - WEEK:
                path.unlink()
        except FileNotFoundError:  # another compilation was faster
            pass


if __name__ == "__main__":
    if sys.argv[1:2] == ["--"]:
        sys.exit(compile_once(Path(sys.argv[2]), sys.argv[3:]))
    if len(sys.argv) != 3:
        sys.exit("usage: caching_compiler.py CACHE WRAPPER")
    print(write_wrapper(Path(sys.argv[1]), Path(sys.argv[2])))
