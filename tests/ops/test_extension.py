"""What keeps the native kernels out is said in a sentence, and nothing else fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from sa_layers.ops import extension

STALE = """
from sa_layers.ops import extension
extension.OPERATORS += ("of_tomorrow",)
extension._load.cache_clear()
print(extension.why_not())
"""


def test_names_what_the_schemas_name(repository: Path) -> None:
    source = repository / "csrc/library.cpp"
    if not source.is_file():
        pytest.skip("the tests run outside the source tree")
    text = source.read_text()
    assert sorted(re.findall(r'library\.def\(\s*"(\w+)\(', text)) == sorted(extension.OPERATORS)


def test_kernels_of_an_older_source_tree_are_not_used(run_python: Callable[..., CompletedProcess[str]]) -> None:
    printed = run_python(STALE).stdout
    if extension.is_available():
        assert "compiled from an older sa_layers, without of_tomorrow; build them with" in printed
