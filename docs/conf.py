"""Sphinx: Markdown pages by MyST, the reference from docstrings. `make docs` treats every warning as an error."""

import contextlib
import io
import os
import runpy
import sys
from typing import Any
from unittest import mock

from sa_layers import __version__

project = "sa-layers"
copyright = "the sa-layers authors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # ships MathJax with the pages
]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpick_ignore_regex = [("py:.*", r".*")]  # torch's and OpenMMLab's types are not linked

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_custom_sections = [("Shapes", "notes_style")]

html_theme = "furo"
html_title = f"sa-layers {version}"


def insert_help(app: Any, name: str, source: list[str]) -> None:
    """Replace ``{{help of MODULE …}}`` in the page of commands by what ``python -m MODULE … --help`` prints."""
    if name == "reference/commands":
        lines = source[0].splitlines()
        marked = [line.startswith("{{help of ") for line in lines]
        source[0] = "\n".join(help_of(line[10:-2]) if mark else line for line, mark in zip(lines, marked, strict=True))


def help_of(command: str) -> str:
    """The help text of a module's command line. All are read in one process, since each imports torch."""
    module, *arguments = command.split()
    printed = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [module, *arguments, "--help"]),
        mock.patch.dict(os.environ, COLUMNS="100"),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    return f"```text\n{printed.getvalue()}```"


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", insert_help)
