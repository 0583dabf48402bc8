"""Settings of Sphinx; docs/README.md has the command that builds the site."""

import typing

import jax

# Annotations are to read as they are written: not with jaxlib's name for the class, ...
jax.Array.__name__ = "Array"

import frcnn_jax  # noqa: E402
from frcnn_jax.config import schema  # noqa: E402

# ... and without the range of a config's field, which goes into the text below.
RANGES = {}
for section in [*schema.Section.__subclasses__(), schema.DataConfig]:
    hints = typing.get_type_hints(section)
    section.__annotations__ = {name: hints[name] for name in section.__annotations__}
    for name, allowed in section.ranges.items():
        text = f"{str(allowed).capitalize()}."
        RANGES[f"{section.__module__}.{section.__name__}.{name}"] = text

project = "frcnn_jax"
author = "the frcnn_jax authors"
copyright = author
version = release = frcnn_jax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["README.md"]
default_role = "literal"  # a word between single backticks in a docstring is code

# The walk-through runs at every build. An exception in a cell, such as a failing
# assertion, is an error of the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 900  # seconds a cell
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars' complaints

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_class_signature = "separated"  # the fields follow below
autodoc_default_options = {"exclude-members": "__new__"}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 72

html_theme = "sphinx_book_theme"
html_title = "frcnn_jax"
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "navbar_persistent": [],  # the side bar has the search
}
copybutton_exclude = ".linenos, .gp, .go"


def setup(app):
    """Registers what follows."""
    app.connect("autodoc-process-docstring", adapt_docstring, priority=400)


def adapt_docstring(app, what, name, obj, options, lines):
    """Prepares the lines of a docstring for napoleon, which runs after this.

    Of results and attributes it would take what precedes a colon for the type, unless
    there is nothing.
    """
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()  # says nothing of a field without a comment
    if lines and what in ("attribute", "property"):
        lines[0] = f": {lines[0]}"
    if name in RANGES:
        lines[-1:] = [RANGES[name], ""]
    for number, line in enumerate(lines[:-1]):
        if line.strip() == "Returns:":
            text = lines[number + 1]
            indent = len(text) - len(text.lstrip())
            lines[number + 1] = f"{text[:indent]}: {text[indent:]}"
