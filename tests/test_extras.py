"""Packages that are not installed: what to install, and what works without them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sa_layers.extras import EXTRAS, MissingPackageError, explain, importing, require

RunPrograms = Callable[..., dict[str, str]]


def test_extras_exist(repository: Path) -> None:
    text = (repository / "pyproject.toml").read_text()
    existing = re.findall(r"^(\w+) = \[", text.partition("[project.optional-dependencies]")[2], re.MULTILINE)
    assert {extra for extras in EXTRAS.values() for extra in extras} <= set(existing)


@pytest.mark.parametrize(
    ("name", "extra", "suggested"),
    [
        ("cv2", None, "visualize"),
        ("cv2", "datasets", "datasets"),
        ("cv2", "export", "visualize"),
        ("mmseg", None, "segmentation"),
        ("numba", "visualize", "reference"),
    ],
)
def test_suggestion(name: str, extra: str | None, suggested: str) -> None:
    error = ModuleNotFoundError(f"No module named {name!r}", name=name)
    assert explain(error, extra) == f"{name} is not installed: pip install 'sa-layers[{suggested}]'"


def test_broken_package() -> None:
    error = ImportError("libGL.so.1: cannot open shared object file", name="cv2.cv2")
    assert explain(error) == (
        "cv2 cannot be imported (libGL.so.1: cannot open shared object file): "
        "pip install --force-reinstall 'sa-layers[visualize]'"
    )


def test_other_modules_are_not_explained() -> None:
    error = ModuleNotFoundError("No module named 'sa_layers.nowhere'", name="sa_layers.nowhere")
    assert explain(error) is None
    with pytest.raises(ModuleNotFoundError) as caught, importing("export"):
        raise error
    assert caught.value is error


def test_require(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    require("export", "torch")
    with pytest.raises(MissingPackageError, match=r"^onnx is not installed: pip install 'sa-layers\[export\]'$"):
        require("export", "torch", "onnx")


WITHOUT = """
import sys, runpy
for name in {names}:
    sys.modules[name] = None
try:
    {statement}
except MemoryError:
    raise
except BaseException as error:
    print("ended:", type(error).__name__, error)
"""
MODULE = "sys.argv[1:] = {}; runpy.run_module('sa_layers.{}', run_name='__main__', alter_sys=True)"
PHOTOGRAPH = MODULE.format(["image.png", "config.py"], "visualize")


def test_without_packages(run_programs: RunPrograms) -> None:
    """Help needs none of them; commands and imports name the one that is missing, without a traceback."""
    pip = "is not installed: pip install 'sa-layers["
    programs = {
        "help": (["numpy", "cv2", "matplotlib"], MODULE.format(["--help"], "visualize"), "ended: SystemExit 0"),
        "visualize": (["numpy"], PHOTOGRAPH, f"error: numpy {pip}visualize]'.\nended: SystemExit 1"),
        "drawing": (["matplotlib"], PHOTOGRAPH, f"error: matplotlib {pip}visualize]'.\nended: SystemExit 1"),
        "function": (
            ["numpy"],
            "from sa_layers.visualize import attention_weights",
            f"ended: MissingPackageError numpy {pip}visualize]'",
        ),
        "reference": (
            ["numpy"],
            "import sa_layers.reference",
            f"ended: MissingPackageError numpy {pip}reference]'",
        ),
        "numba": (["numba"], "import sa_layers.reference", f"ended: MissingPackageError numba {pip}reference]'"),
        "plot": (
            ["matplotlib"],
            MODULE.format(["operators", "--quick", "--plot", "a.png"], "benchmark"),
            f"error: matplotlib {pip}benchmark]'.\nended: SystemExit 1",
        ),
        "networks": (
            ["torchvision"],
            MODULE.format(["networks", "--quick", "--depth", "10"], "benchmark"),
            f"error: torchvision {pip}benchmark]'.\nended: SystemExit 1",
        ),
        "config": (
            ["mmengine"],
            MODULE.format(["config.py", "a.onnx"], "export"),
            f"error: mmengine {pip}backbones]'.\nended: SystemExit 1",
        ),
        "format": (["onnx"], MODULE.format(["config.py", "a.onnx"], "export"), f"needs onnx, which {pip}export]'."),
        "shapes": (["cv2"], MODULE.format(["shapes"], "datasets.shapes"), "ended: SystemExit 1"),
    }
    printed = run_programs(
        {name: WITHOUT.format(names=names, statement=statement) for name, (names, statement, _) in programs.items()}
    )
    for name, (_, _, expected) in programs.items():
        assert expected in printed[name], f"{name}: {printed[name]}"
        assert "Traceback" not in printed[name]
