"""The machine on which a benchmark runs: device, threads, description and available memory."""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

import torch

from ..command_line import integer
from ..version import __version__
from .errors import BenchmarkError

DTYPES = {"float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that every benchmark has."""
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument(
        "--device", type=parse_device, default=default, help=f"cpu, cuda or cuda:N (default on this machine: {default})"
    )
    parser.add_argument("--dtype", default="float32", choices=DTYPES, help="data type (default: float32)")
    parser.add_argument(
        "--threads", type=integer(1, 1024), metavar="N", help="number of CPU threads (default: torch's default)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="run a few small problems to check that the benchmark works"
    )


def prepare(arguments: argparse.Namespace) -> torch.device:
    """Set the number of threads and return the device.

    Raises:
        BenchmarkError: If the device is not available.
    """
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    device: torch.device = arguments.device
    check_device(device)
    return device


def check_device(device: torch.device) -> None:
    """Check that a device is available, and make it the current one of its kind.

    Raises:
        BenchmarkError: If it is not.
    """
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if count <= (device.index or 0):
            found = {0: "no GPU", 1: "one GPU"}.get(count, f"{count} GPUs")
            raise BenchmarkError(f"--device {device} is not available: torch finds {found} on this machine")
        if device.index is not None:  # set_device requires an index; without one it is the current device
            torch.cuda.set_device(device)


def parse_device(text: str) -> torch.device:
    """Return the device that an argument names: cpu, cuda or cuda:N."""
    try:
        device = torch.device(text)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"must be cpu, cuda or cuda:N, got {text!r}")
    return device


def describe(device: torch.device) -> dict[str, object]:
    """Describe processor, threads and versions, which must be known to compare measurements."""
    described: dict[str, object] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "sa_layers": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        described |= {"cuda": torch.version.cuda, "capability": f"{properties.major}.{properties.minor}"}
    return described


def processor() -> str:
    """Return the name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def available_memory(device: torch.device) -> int:
    """Return the number of bytes of available memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
