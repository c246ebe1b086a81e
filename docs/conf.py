"""Sphinx's settings: `make docs` builds the site in docs/_build/html, without a network."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
# The notebook's kernel is another process, and shall see the same package.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))

from docstrings import converted  # noqa: E402

from vesselsdf import __version__  # noqa: E402

project = "VesselSDF"
release = version = __version__
copyright = "the VesselSDF authors, Apache-2.0"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.viewcode", "myst_nb", "generated"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
html_theme = "furo"
html_title = f"VesselSDF {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False
highlight_language = "none"
pygments_style, pygments_dark_style = "tango", "monokai"

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]
# The notebook has no outputs of its own: they are made here, or left out (tests execute it, too).
nb_execution_mode = "off" if os.environ.get("NOTEBOOK") == "off" else "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_ipywidgets_js = {}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90


def plain(app, what, name, obj, options, lines: list[str]) -> None:
    """autodoc's hook: docstrings are plain text."""
    lines[:] = converted(lines)


def setup(app) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", plain)
