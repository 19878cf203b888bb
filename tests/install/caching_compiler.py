"""A C++ compiler that compiles the same thing once: the tests install several times what takes a minute to compile.

Run as ``caching_compiler.py COMPILER CACHE ARGUMENTS...``. An object is kept under a digest of the preprocessed source
and the flags, without the paths of folders, which differ between environments. Everything else goes to the compiler.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

FOLDERS = re.compile(rb'(?<=")/[^"\n]*/(?=(?:torch/include|csrc)/)')


def main(compiler: str, cache: Path, arguments: list[str]) -> int:
    """Compiles, or copies what was compiled before."""
    if "-c" not in arguments or "-o" not in arguments:
        return subprocess.run([compiler, *arguments], check=False).returncode
    output = Path(arguments[arguments.index("-o") + 1])
    without_output = [word for word in arguments if word not in ("-c", "-o", str(output))]
    preprocessed = subprocess.run([compiler, *without_output, "-E", "-P"], stdout=subprocess.PIPE, check=False)
    if preprocessed.returncode:
        return preprocessed.returncode
    flags = [word for word in without_output if word.startswith("-") and not word.startswith(("-I", "-M"))]
    binary = os.stat(shutil.which(compiler) or compiler)
    key = f"{compiler} {binary.st_size} {binary.st_mtime_ns} {' '.join(flags)}".encode()
    digest = hashlib.sha256(key + FOLDERS.sub(b"", preprocessed.stdout)).hexdigest()
    kept = cache / f"{digest}.o"
    if kept.is_file():
        os.utime(kept)
        shutil.copyfile(kept, output)
        return 0
    status = subprocess.run([compiler, *arguments], check=False).returncode
    if status == 0:
        partial = kept.with_suffix(f".{os.getpid()}")
        shutil.copyfile(output, partial)
        partial.replace(kept)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
