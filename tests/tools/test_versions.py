"""The table of versions that were run: what it is made from, and where it is shown."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def versions(repository: Path) -> Any:
    """The tool, as a module."""
    specification: Any = importlib.util.spec_from_file_location("versions", repository / "tools" / "versions.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_counts_of_pytest(versions: Any) -> None:
    """The numbers of the last line, in any order."""
    printed = "....\nFAILED a - b\n1 failed, 20 passed, 3 skipped, 1 warning in 2.00s"
    assert versions.counted(printed) == {"passed": 20, "failed": 1, "skipped": 3}
    assert versions.counted("no tests ran in 0.01s") == {"passed": 0, "failed": 0, "skipped": 0}


def test_a_result_replaces_one_of_the_same_versions(
    versions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "RESULTS", tmp_path / "versions.jsonl")
    result = {"python": "3.11.7", "torch": "2.11.0", "kernels": "none", "passed": 1, "failed": 1, "skipped": 0}
    versions.add(result)
    versions.add(result | {"python": "3.12.1"})
    versions.add(result | {"passed": 2, "failed": 0})
    assert [(item["python"], item["passed"]) for item in versions.read()] == [("3.11.7", 2), ("3.12.1", 1)]


def test_the_documentation_shows_the_table(versions: Any, repository: Path) -> None:
    """``python tools/versions.py --table`` prints it."""
    assert versions.table() in (repository / "docs" / "getting-started.md").read_text()
