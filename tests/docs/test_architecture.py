"""docs/architecture.md: the paths that it names exist, and the way to the innermost loop is short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "architecture.md").read_text()


MOVED = (REPOSITORY / "csrc" / "cuda" / "pairwise_attention").is_dir()  # the page describes this layout already


@pytest.mark.parametrize("device", ["CPU", "CUDA"] if MOVED else ["CPU"])
def test_way_to_the_innermost_loop(device: str) -> None:
    (listed,) = re.findall(rf"^On (?:the )?{device}\b.*:\n\n((?:\d\. .*\n)+)", PAGE, re.MULTILINE)
    files = re.findall(r"^\d\. `(.*?)`", listed, re.MULTILINE)
    assert 3 <= len(files) <= 7
    for file in files:
        assert (REPOSITORY / file).is_file(), file


PATHS = sorted(set(re.findall(r"`((?:csrc|sa_layers|tools|tests|mm_configs|benchmarks)/\w[\w./]*)`", PAGE)))


@pytest.mark.parametrize("path", [path for path in PATHS if MOVED or not path.startswith("csrc/cuda/")])
def test_paths_exist(path: str) -> None:
    assert (REPOSITORY / path).exists()
