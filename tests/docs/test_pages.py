"""The documentation builds without warnings; its programs run and its commands exist."""

from __future__ import annotations

import re
import runpy
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import RunPrograms, RunPython

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [*sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def programs(page: Path) -> list[str]:
    """Its Python blocks except configs, which test_readme.py and tests/openmmlab build."""
    return [block for block in blocks(page, "python") if not re.search(r"^\s*(_base_|model)\s*=", block, re.MULTILINE)]


def test_programs_run(run_programs: RunPrograms) -> None:
    """The programs of each page, in the order in which a reader meets them."""
    pages = {page.name: "\n".join(programs(page)) for page in PAGES if programs(page)}
    assert len(pages) > 5
    run_programs(pages)


MODULES = {
    (page.name, shlex.split(line, comments=True)[2])
    for page in PAGES
    for block in blocks(page, "bash")
    for line in block.replace("\\\n", " ").splitlines()
    if re.match(r"python -m sa_layers\.", line)
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # another test may have imported the module
@pytest.mark.parametrize(("page", "module"), sorted(MODULES))
def test_commands_exist(
    page: str, module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [module, "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert stopped.value.code == 0
    assert "usage" in capsys.readouterr().out


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
    commands = (tmp_path / "site/reference/commands.html").read_text()
    assert "usage: python -m sa_layers.export" in commands
    assert "usage: python -m sa_layers.benchmark networks" in commands
    formulas = (tmp_path / "site/layers.html").read_text()
    assert re.search(r'src="_static/mathjax/tex-chtml\.js', formulas), "formulas need a network"
    assert (tmp_path / "site/_static/mathjax/tex-chtml.js").is_file()
