"""The documentation builds without a warning, and what its pages show works."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from subprocess import CompletedProcess

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [*sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]
RunPython = Callable[..., CompletedProcess[str]]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def programs(page: Path) -> list[str]:
    """Its Python, without the configs, which test_readme.py and tests/openmmlab build."""
    return [block for block in blocks(page, "python") if not re.search(r"^\s*(_base_|model)\s*=", block, re.MULTILINE)]


@pytest.mark.parametrize("page", [page for page in PAGES if programs(page)], ids=lambda page: page.name)
def test_programs_run(page: Path, run_python: RunPython) -> None:
    """One after the other, in one process, as somebody who reads down the page would type them."""
    run_python("\n".join(programs(page)))


MODULES = {
    (page.name, shlex.split(line, comments=True)[2])
    for page in PAGES
    for block in blocks(page, "bash")
    for line in block.replace("\\\n", " ").splitlines()
    if re.match(r"python -m sa_layers\.", line)
}


@pytest.mark.parametrize(("page", "module"), sorted(MODULES))
def test_commands_exist(page: str, module: str, run_python: RunPython) -> None:
    assert "usage" in run_python(None, "-m", module, "--help").stdout


def test_make_targets_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    lines = [line for page in PAGES for block in blocks(page, "bash") for line in block.splitlines()]
    targets = {line.split()[1] for line in lines if line.startswith("make ")}
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_site_builds(tmp_path: Path, run_python: RunPython) -> None:
    """Broken links between pages and broken docstrings are warnings, which fail."""
    if not find_spec("sphinx"):
        pytest.skip("could not import 'sphinx'")
    pytest.importorskip("mmengine")
    options = ("--fail-on-warning", "--keep-going", "--quiet", "-b", "html")
    run_python(None, "-m", "sphinx", *options, REPOSITORY / "docs", tmp_path / "site")
    assert "pairwise_relation" in (tmp_path / "site/reference/operators.html").read_text()
