"""The CUDA kernels' own source, compiled for the host: right on random problems, clean under the sanitizers.

host/ holds a CUDA runtime of a hundred lines, with a thread of the host for every thread of a block, and the reference.
"""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

COMPILER = shlex.split(os.environ.get("CXX", "c++"))
HOST = Path(__file__).parent / "host"

pytestmark = pytest.mark.skipif(shutil.which(COMPILER[0]) is None, reason="no C++ compiler is here")


def build(folder: Path, repository: Path, sanitizers: str) -> Path:
    """Compiles the kernels and their checks."""
    program = folder / "kernels_on_host"
    command = [*COMPILER, "-std=c++20", "-O0", "-g1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-pthread"]
    command += [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    command += [f"-I{HOST / 'include'}", f"-I{HOST}", f"-I{repository / 'csrc'}"]
    done = subprocess.run([*command, HOST / "kernels_on_host.cpp", "-o", program], capture_output=True, text=True)
    if "cannot find" in done.stderr and "san" in done.stderr:
        pytest.skip(f"the compiler is without its sanitizers: {sanitizers}")
    assert done.returncode == 0, done.stderr
    return program


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TSAN_OPTIONS": "halt_on_error=1"}
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=600, env=environment)


def test_kernels_agree_with_the_reference_and_stay_within_memory(tmp_path: Path, repository: Path) -> None:
    program = build(tmp_path, repository, "address,undefined")
    for seed in ("0", "1"):
        done = run(program, seed, "12")
        assert done.returncode == 0, done.stdout + done.stderr[-4000:]
        tiled, other = (int(done.stdout.split(f" {kind} launches")[0].split()[-1]) for kind in ("tiled", "other"))
        assert min(tiled, other) > 80, done.stdout  # or the seed leaves kernels out


@pytest.fixture(scope="module")
def watched_program(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The program under ThreadSanitizer."""
    return build(tmp_path_factory.mktemp("threads"), repository, "thread")


def test_threads_of_a_block_do_not_race(watched_program: Path) -> None:
    done = run(watched_program, "2", "5")
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]


def test_missing_barriers_are_reported(watched_program: Path) -> None:
    done = run(watched_program, "2", "0", "without-barriers")
    assert done.returncode != 0
    assert "data race" in done.stderr
