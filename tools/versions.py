"""Runs the library's tests with another Python and torch, and keeps the table of what was run.

    python tools/versions.py                                        # those of this interpreter
    python tools/versions.py --python python3.12 --torch 2.10.0     # in a scratch environment, which takes gigabytes
    python tools/versions.py --table                                # prints the table of docs/getting-started.md

The kernels are those of this checkout: one binary serves every Python and every torch from the floor up, which is what
these runs show. Results are added to ``benchmarks/results/versions.jsonl``, one for each pair of versions.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "versions.jsonl"
# What loads the extension, the private names of torch that are used, an operator and the layers.
TESTS = (
    "tests/ops/test_extension.py",
    "tests/ops/test_torch_internals.py",
    "tests/ops/test_aggregation.py",
    "tests/layers/test_self_attention.py",
)
REQUIREMENTS = ("numpy", "numba>=0.60", "pytest>=8", "hypothesis>=6.100")
DESCRIBE = """
import json, platform, torch
from sa_layers.ops import extension
print(json.dumps([platform.python_version(), torch.__version__, extension.is_available()]))
"""


def make_environment(python: str, torch: str, folder: Path) -> Path:
    """Make an environment with a torch and what the tests import, and return its interpreter."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    interpreter = folder / "bin" / "python"
    install = [str(interpreter), "-m", "pip", "install", "--quiet", f"torch=={torch}", *REQUIREMENTS]
    subprocess.run(install, check=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    (packages / "sa_layers.pth").write_text(f"{ROOT}\n")
    return interpreter


def run_tests(interpreter: Path) -> dict[str, object]:
    """Run the tests by an interpreter, and return the versions and the numbers of tests."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    described = subprocess.run(
        [interpreter, "-c", DESCRIBE], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    python, torch, kernels = json.loads(described.stdout)
    command = [str(interpreter), "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    process = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    print(process.stdout[-3000:])
    counts = counted(process.stdout)
    if process.returncode not in (0, 1) or not counts.get("passed"):
        sys.exit(f"the tests did not run:\n{process.stdout[-3000:]}{process.stderr[-3000:]}")
    built_with = json.loads((ROOT / "sa_layers" / "build_info.json").read_text())["built_with_torch"]
    return {"python": python, "torch": torch, "kernels": f"built with {built_with}" if kernels else "none", **counts}


def counted(output: str) -> dict[str, int]:
    r"""Read the last line of pytest.

    >>> counted("...\n1 failed, 20 passed, 3 skipped, 1 warning in 2.00s")
    {'passed': 20, 'failed': 1, 'skipped': 3}
    """
    last = output.strip().rpartition("\n")[2]
    found = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", last)}
    return {word: found.get(word, 0) for word in ("passed", "failed", "skipped")}


def add(result: dict[str, object]) -> None:
    """Write a result in place of an earlier one with the same versions."""
    kept = [item for item in read() if (item["python"], item["torch"]) != (result["python"], result["torch"])]
    lines = sorted(json.dumps(item) for item in [*kept, result])
    RESULTS.write_text("\n".join(lines) + "\n")


def read() -> list[dict[str, object]]:
    """Return all results."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def table() -> str:
    """Return the results as a Markdown table."""
    columns = ("python", "torch", "kernels", "passed", "failed", "skipped")
    lines = ["| Python | torch | kernels | passed | failed | skipped |", "|---|---|---|---:|---:|---:|"]
    return "\n".join(lines + ["| " + " | ".join(str(item[name]) for name in columns) + " |" for item in read()])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests or print the table; the result is the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--python", default=sys.executable, help="interpreter of the scratch environment")
    parser.add_argument("--torch", metavar="VERSION", help="torch to install there (default: no environment is made)")
    parser.add_argument("--table", action="store_true", help="only print the table")
    options = parser.parse_args(arguments)
    if not options.table:
        if options.torch is None:
            result = run_tests(Path(options.python))
        else:
            with tempfile.TemporaryDirectory() as folder:
                result = run_tests(make_environment(options.python, options.torch, Path(folder)))
        add(result)
    print(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
