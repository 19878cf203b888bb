"""Builds, tests and measures the CUDA kernels on a machine with a GPU: ``make gpu-check``.

    python tools/gpu_check.py [STEP ...] [--output FOLDER]

Uses the Python that runs it, with the torch installed there, and no network; compiles into the source tree and installs
nothing. Writes gpu_check.json and gpu_check.md, the logs and the benchmark's figures to a folder named after the GPU. A
step that fails does not keep the others from running.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
# Batch 64 is what the figures are about, batch 1 what latency is. A GPU's times hardly vary: few rounds will do.
BENCHMARKS = {
    "networks": ["--depth", "19", "--task", "inference", "--seconds", "5"],
    "attentions": ["--task", "inference", "--batch", "1", "64", "--seconds", "0.5"],
    "operators": ["--batch", "1", "64", "--seconds", "0.5"],
}
BENCHMARK_DTYPES = ("bfloat16", "float32", "float16")


class Outcome(NamedTuple):
    """How a step ended."""

    step: str
    command: str
    passed: bool | None
    """None when it could not be run."""
    seconds: float
    summary: str


def why_no_gpu() -> str | None:
    """One sentence on why nothing can be checked here, or None."""
    try:
        import torch
    except ImportError as error:
        return f"torch cannot be imported by {sys.executable} ({error})"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} of {sys.executable} is without CUDA"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} of {sys.executable} finds no GPU"
    return None


def run(step: str, command: list[str], folder: Path, summarise: Callable[[str], str], **environment: str) -> Outcome:
    """Runs a command from the repository's root and keeps what it prints."""
    print(f"{step}: {' '.join(command)}", flush=True)
    begin = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    (folder / f"{step}.log").write_text(done.stdout)
    summary = summarise(done.stdout)
    print(f"  {'passed' if done.returncode == 0 else 'FAILED'}: {summary}", flush=True)
    return Outcome(step, " ".join(command), done.returncode == 0, round(time.perf_counter() - begin, 1), summary)


def last_line(printed: str) -> str:
    """Where pytest and failing programs say how it went."""
    lines = [line for line in printed.splitlines() if line.strip()]
    return lines[-1].strip("= ") if lines else "nothing was printed"


def missing(step: str, *modules: str) -> Iterator[Outcome]:
    """An outcome if a module is not installed."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        print(f"{step}: not run, since {', '.join(absent)} is not installed", flush=True)
        yield Outcome(step, "", None, 0.0, f"{', '.join(absent)} is not installed")


def build(folder: Path) -> Iterator[Outcome]:
    """Compiles for this GPU, into the source tree: an environment that cannot be installed into will do."""
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    settings = {"SA_LAYERS_KERNELS": "required", "SA_LAYERS_CUDA": "required"}  # or it would go on without them
    yield run("build", command, folder, last_line, **settings)
    yield run("info", [sys.executable, "-m", "sa_layers.info"], folder, lambda printed: "see info.log")


def test(folder: Path) -> Iterator[Outcome]:
    """The CUDA tests that a GPU makes a difference to, and the operators' suite on it."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    if importlib.util.find_spec("xdist"):  # the GPU has time for more than one
        pytest += ["-n", str(min(os.cpu_count() or 1, 12))]
    if absent := list(missing("tests-cuda", "pytest")):
        yield from absent
        return
    yield run("tests-cuda", [*pytest, "tests/cuda/test_on_device.py", "tests/cuda/test_library.py"], folder, last_line)
    if absent := list(missing("tests-operators", "hypothesis", "numba")):
        yield from absent
        return
    yield run("tests-operators", [*pytest, "tests/ops", "-k", "cuda"], folder, last_line)


def sanitize(folder: Path) -> Iterator[Outcome]:
    """compute-sanitizer over every kernel, on shapes small enough for it; its tools side by side."""
    sanitizer = find_sanitizer()
    if sanitizer is None:
        for tool in SANITIZERS:
            yield Outcome(f"sanitizer-{tool}", "", None, 0.0, "compute-sanitizer is not installed")
        return

    def check(tool: str) -> Outcome:
        command = [sanitizer, "--tool", tool, "--error-exitcode", "1", sys.executable, "-m", "tools.run_kernels"]
        # torch's caching allocator would hide reads beyond a tensor
        return run(f"sanitizer-{tool}", command, folder, errors, PYTORCH_NO_CUDA_MEMORY_CACHING="1")

    with ThreadPoolExecutor(len(SANITIZERS)) as pool:
        yield from pool.map(check, SANITIZERS)


def find_sanitizer() -> str | None:
    """compute-sanitizer: on the path, or where the toolkit keeps it."""
    from torch.utils.cpp_extension import CUDA_HOME

    places = [Path(CUDA_HOME, "bin"), Path(CUDA_HOME, "compute-sanitizer")] if CUDA_HOME else []
    found = [str(place / "compute-sanitizer") for place in places if (place / "compute-sanitizer").is_file()]
    return shutil.which("compute-sanitizer") or (found[0] if found else None)


def errors(printed: str) -> str:
    """The sanitizer's own summary."""
    found = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (.*)", printed)
    return found[-1] if found else last_line(printed)


def benchmark(folder: Path) -> Iterator[Outcome]:
    """Networks beside ResNets where torchvision is installed, whole attentions and operators, at batch 1 and 64."""
    for dtype in BENCHMARK_DTYPES:
        for what, options in BENCHMARKS.items():
            absent = list(missing(f"benchmark-{what}-{dtype}", "torchvision")) if what == "networks" else []
            yield from absent or [measure(folder, what, dtype, options, plots=what != "attentions")]


def measure(folder: Path, what: str, dtype: str, options: list[str], *, plots: bool = False) -> Outcome:
    """One of the benchmarks, its figures, and where matplotlib is installed its picture."""
    command = [sys.executable, "-m", "sa_layers.benchmark", what, "--device", "cuda", "--dtype", dtype, *options]
    command += ["--json", str(folder / f"{what}-{dtype}.json")]
    if plots and importlib.util.find_spec("matplotlib"):
        command += ["--plot", str(folder / f"{what}-{dtype}.png")]
    name = f"benchmark-{what}-{dtype}"
    return run(name, command, folder, lambda printed: f"{len(printed.splitlines())} lines of tables")


STEPS: dict[str, Callable[[Path], Iterator[Outcome]]] = {
    "build": build,
    "test": test,
    "sanitize": sanitize,
    "benchmark": benchmark,
}


def write(folder: Path, machine: dict[str, str], outcomes: list[Outcome]) -> None:
    """The JSON file and the Markdown table."""
    content = {"machine": machine, "steps": [outcome._asdict() for outcome in outcomes]}
    (folder / "gpu_check.json").write_text(json.dumps(content, indent=2) + "\n")
    lines = [f"# GPU check: {machine['gpu']}", "", ", ".join(f"{name} {value}" for name, value in machine.items()), ""]
    lines += ["| step | result | time | summary |", "|---|---|---:|---|"]
    results = {True: "passed", False: "**failed**", None: "not run"}
    lines += [
        f"| {outcome.step} | {results[outcome.passed]} | {outcome.seconds:.0f} s | {outcome.summary} |"
        for outcome in outcomes
    ]
    (folder / "gpu_check.md").write_text("\n".join(lines) + "\n")


def main() -> int:
    """Runs the steps; the exit status is 1 if one of them failed or there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)} (default: all, in this order)")
    parser.add_argument("--output", type=Path, help="folder of the results (default: benchmarks/results/GPU)")
    arguments = parser.parse_args()
    if unknown := [step for step in arguments.steps if step not in STEPS]:
        parser.error(f"STEP must be one of {', '.join(STEPS)}, got {unknown[0]!r}")
    if obstacle := why_no_gpu():
        print(f"gpu-check needs an NVIDIA GPU and a torch that finds it: {obstacle}.", file=sys.stderr)
        return 1
    import torch

    name = torch.cuda.get_device_name()
    machine = {
        "gpu": name,
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "python": sys.version.split()[0],
    }
    folder = arguments.output or ROOT / "benchmarks" / "results" / re.sub(r"\W+", "-", name).strip("-").lower()
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    for step in arguments.steps or STEPS:
        for outcome in STEPS[step](folder):
            outcomes.append(outcome)
            write(folder, machine, outcomes)
    print(f"results: {folder}")
    return 1 if any(outcome.passed is False for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # nothing is installed
    from sa_layers.command_line import command

    sys.exit(command()(main)())
