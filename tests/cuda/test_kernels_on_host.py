"""The CUDA kernels' own source, compiled for the host: correct on random problems, clean under the sanitizers.

``host/`` holds a small CUDA runtime and a check program for each family of kernels. Under AddressSanitizer the
threads of a block are fibers of one thread, which is fast; under ThreadSanitizer they are threads of their own. By
default every program checks a few problems under AddressSanitizer, and one under ThreadSanitizer and for undefined
behaviour, whose checks take the compiler longer than everything else; ``--exhaustive`` checks many, and all under all.
"""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

COMPILER = shlex.split(os.environ.get("CXX", "c++"))
HOST = Path(__file__).parent / "host"
PROGRAMS = sorted(path.stem for path in HOST.glob("*.cpp"))

pytestmark = pytest.mark.skipif(shutil.which(COMPILER[0]) is None, reason="no C++ compiler is here")


def build(name: str, folder: Path, repository: Path, sanitizers: str) -> Path:
    """Compiles one family of kernels and its checks. Optimising takes longer than it saves."""
    program = folder / name
    command = [*COMPILER, "-std=c++20", "-O0", "-g1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-pthread"]
    command += [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    command += [f"-I{HOST / 'include'}", f"-I{HOST}", f"-I{repository / 'csrc'}"]
    done = subprocess.run([*command, HOST / f"{name}.cpp", "-o", program], capture_output=True, text=True)
    if "cannot find" in done.stderr and "san" in done.stderr:
        pytest.skip(f"the compiler has no {sanitizers} sanitizer")
    assert done.returncode == 0, done.stderr
    return program


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TSAN_OPTIONS": "halt_on_error=1"}
    command = [program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)


def check(program: Path, seed: int, problems: int) -> None:
    done = run(program, seed, problems)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    tiled, other = (int(done.stdout.split(f" {kind} launches")[0].split()[-1]) for kind in ("tiled", "other"))
    assert tiled + other > problems, done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_kernels_agree_with_the_reference_and_stay_within_memory(
    request: pytest.FixtureRequest, name: str, tmp_path: Path, repository: Path
) -> None:
    exhaustive = request.config.getoption("--exhaustive")
    program = build(name, tmp_path, repository, "address,undefined" if exhaustive or name == "linear" else "address")
    for seed in range(4 if exhaustive else 1):
        check(program, seed, 24 if exhaustive else 3)


def test_missing_barriers_are_reported_and_others_are_not(tmp_path: Path, repository: Path) -> None:
    program = build("aggregation", tmp_path, repository, "thread")
    check(program, 2, 2)
    done = run(program, 2, 0, "without-barriers")
    assert done.returncode != 0
    assert "data race" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "aggregation"])
def test_threads_of_a_block_do_not_race(
    request: pytest.FixtureRequest, name: str, tmp_path: Path, repository: Path
) -> None:
    if not request.config.getoption("--exhaustive"):
        pytest.skip("only with --exhaustive")
    check(build(name, tmp_path, repository, "thread"), 2, 5)
