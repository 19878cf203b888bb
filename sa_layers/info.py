"""What was built, what computes on every device here, and why not the rest: ``python -m sa_layers.info``.

Needs torch alone. ``--json`` prints the same for programs, such as a report of a bug.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence

import torch

from .ops import BACKENDS, extension
from .ops.backend import decide, devices_of, why_not
from .version import __version__

Information = dict[str, object]


def information() -> Information:
    """Everything that is printed.

    Returns:
        'releases' of sa_layers, torch and Python; 'platform'; 'kernels' and 'cuda_kernels', each with 'loaded' or why
        not; 'devices', each with its 'chosen' backend and, for the others, why not; 'environment', our variables that
        are set.

    Example:
        >>> information()["releases"]["torch"] == torch.__version__
        True
    """
    return {
        "releases": {"sa_layers": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "platform": platform.platform(),
        "kernels": _kernels(),
        "cuda_kernels": _cuda_kernels(),
        "devices": {name: _device(torch.device(name)) for name in _devices()},
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith("SA_LAYERS_")},
    }


def _kernels() -> Information:
    built = extension.build_info()
    found: Information = {"loaded": extension.is_available(), "why_not": extension.why_not()}
    found |= {"built_with_torch": built.get("built_with_torch"), "needs_torch": built.get("needs_torch")}
    if extension.is_available():
        found["cpu_capability"] = torch.ops.sa_layers.cpu_capability()
        found["whole_attention"] = _whole_attention("cpu")
    return found


def _cuda_kernels() -> Information:
    obstacle = extension.why_not_cuda()
    built_for = extension.build_info().get("cuda_architectures")
    found: Information = {"loaded": obstacle is None, "why_not": obstacle, "architectures": built_for}
    return found | ({} if obstacle else {"whole_attention": _whole_attention("cuda")})


def _whole_attention(device: str) -> list[str]:
    """The attentions that one kernel computes in evaluation."""
    return [name for name in ("pairwise_attention", "patchwise_attention") if device in devices_of(name)]


def _devices() -> list[str]:
    return ["cpu", *([f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cuda"])]


def _device(device: torch.device) -> Information:
    if device.type == "cuda" and not torch.cuda.is_available():
        return {"chosen": None, "why_not": {"all": f"torch {torch.__version__} finds no GPU here"}}
    described: Information = {}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        described = {"name": properties.name, "capability": f"{properties.major}.{properties.minor}"}
    obstacles = {name: why_not(name, device) for name in BACKENDS}
    try:
        chosen: str | None = decide(device)
    except RuntimeError as error:
        chosen, obstacles = None, obstacles | {"all": str(error)}
    return described | {"chosen": chosen, "why_not": {name: reason for name, reason in obstacles.items() if reason}}


def _lines(found: Information) -> list[str]:
    """The information as text, a fact a line."""
    lines: list[str] = []
    for name, value in found.items():
        if isinstance(value, dict):
            inner = _lines(value)
            lines += [f"{name}:", *(f"  {line}" for line in inner)] if inner else []
        elif value is not None:
            lines.append(f"{name}: {', '.join(value) if isinstance(value, list) else value}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the information; the result is the exit status."""
    parser = argparse.ArgumentParser(prog="python -m sa_layers.info", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    found = information()
    if parser.parse_args(arguments).json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(_lines(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
