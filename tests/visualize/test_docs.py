"""The page on this shows what runs, and pictures that are there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

PAGE = Path(__file__).resolve().parents[2] / "docs" / "visualize.md"


def test_arrays(run_python: Callable[..., CompletedProcess[str]]) -> None:
    (block,) = (
        b for b in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "SelfAttentionNetwork" in b
    )
    printed = run_python(block + "\nassert field.shape == (64, 96) and kernels.shape == (64, 7, 7)").stdout
    assert "stages.0.blocks.0.attention (2, 3, 3, 32, 48)" in printed


def test_pictures_are_there() -> None:
    for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", PAGE.read_text()):
        assert (PAGE.parent / target).stat().st_size < 250_000
