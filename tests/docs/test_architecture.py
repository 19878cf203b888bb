"""docs/architecture.md: the paths that it names exist, and the way to the innermost loop is short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "architecture.md").read_text()


@pytest.mark.parametrize("device", ["CPU"])
def test_way_to_the_innermost_loop(device: str) -> None:
    (listed,) = re.findall(rf"^On (?:the )?{device}\b.*:\n\n((?:\d\. .*\n)+)", PAGE, re.MULTILINE)
    files = re.findall(r"^\d\. `(.*?)`", listed, re.MULTILINE)
    assert 3 <= len(files) <= 7
    for file in files:
        assert (REPOSITORY / file).is_file(), file
