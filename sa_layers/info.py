"""Show how sa_layers was built, which backend each device uses, and why the other backends are not available.

``python -m sa_layers.info`` needs only torch. ``--json`` prints the same information as JSON, for bug reports and
scripts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence

import torch

from .command_line import command
from .ops import BACKENDS, extension
from .ops.backend import decide, devices_of, why_not
from .ops.implementations import implementations
from .version import __version__

Information = dict[str, object]


def information() -> Information:
    """Collect the information that the command prints.

    Returns:
        A dict with these keys: 'releases', the versions of sa_layers, torch and Python; 'platform'; 'kernels' and
        'cuda_kernels', whether they are 'loaded' and if not, 'why_not'; 'devices', for each device the 'chosen'
        backend and 'why_not' for the unavailable ones; 'environment', the SA_LAYERS_* variables that are set.

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
        found |= _implementations("cpu")
    return found


def _cuda_kernels() -> Information:
    obstacle = extension.why_not_cuda()
    built_for = extension.build_info().get("cuda_architectures")
    found: Information = {"loaded": obstacle is None, "why_not": obstacle, "architectures": built_for}
    return found | ({} if obstacle else {"whole_attention": _whole_attention("cuda"), **_implementations("cuda")})


def _implementations(device: str) -> Information:
    """The implementations of both attentions for a problem of the size of SAN's second stage, in float32."""
    problems: dict[str, tuple] = {
        "pairwise_attention": ("float32", 16, 64, [18, 16, 8], 2, [7, 7], "subtraction", [1, 1], [1, 1]),
        "patchwise_attention": ("float32", 16, 64, 8, [7, 7], "concatenation", [1, 1], [1, 1]),
    }
    listed = {name: implementations(name, device, *problem) for name, problem in problems.items()}
    return {f"{name}_implementations": "; ".join(lines) for name, lines in listed.items() if lines}


def _whole_attention(device: str) -> list[str]:
    """Names of the attentions that the device computes in a single fused kernel."""
    return [name for name in ("pairwise_attention", "patchwise_attention") if device in devices_of(name)]


def _devices() -> list[str]:
    return ["cpu", *([f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cuda"])]


def _device(device: torch.device) -> Information:
    if device.type == "cuda" and not torch.cuda.is_available():
        return {"chosen": None, "why_not": {"all": f"torch {torch.__version__} finds no GPU on this machine"}}
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
    """Format the information as indented lines of text."""
    lines: list[str] = []
    for name, value in found.items():
        if isinstance(value, dict):
            inner = _lines(value)
            lines += [f"{name}:", *(f"  {line}" for line in inner)] if inner else []
        elif value is not None:
            lines.append(f"{name}: {', '.join(value) if isinstance(value, list) else value}")
    return lines


@command()
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the information and return the exit status."""
    description = str(__doc__).partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m sa_layers.info", description=description)
    parser.add_argument("--json", action="store_true", help="print the information as JSON")
    given = parser.parse_args(arguments)
    found = information()
    if given.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(_lines(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
