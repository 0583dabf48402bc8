"""Writes the page of a checked data set: tables, charts, and questionable pictures."""

from pathlib import Path

from frcnn_jax.checking import charts, tables
from frcnn_jax.checking.check import DataCheck
from frcnn_jax.checking.pictures import show_problems, show_suspects
from frcnn_jax.files import replace_text
from frcnn_jax.report.rendering import render


def write_page(check: DataCheck, path: Path) -> None:
    """Writes an HTML file that needs no other file and no network.

    Args:
      check: of a data set.
      path: of the file.

    Raises:
      UserError: if it cannot be written.
    """
    page = render(
        "data.html.j2",
        check=check,
        mistakes=show_problems(check, is_wrong=True),
        doubts=show_problems(check, is_wrong=False),
        suspects=show_suspects(check),
        tables=tables,
        charts=charts,
    )
    replace_text(path, page)
