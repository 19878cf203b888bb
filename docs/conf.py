"""Sphinx: Markdown pages by MyST, the reference from docstrings. `make docs` treats every warning as an error."""

from sa_layers import __version__

project = "sa-layers"
copyright = "the sa-layers authors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
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
