"""Prints a checked data set."""

import itertools
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from frcnn_jax.checking import tables
from frcnn_jax.checking.check import DataCheck
from frcnn_jax.checking.problems import KINDS
from frcnn_jax.report.tables import Table

_WIDTH = 200  # of a table that is not printed to a terminal
_MAX_LINES = 10  # of a kind that is not a mistake


def print_check(check: DataCheck) -> None:
    """Prints tables, what is worth a look, and at the end every mistake."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    for table in tables.all_tables(check):
        _print_table(console, table)
    for note in check.notes:
        print(f"note: {note}")
    for split in check.splits:
        suspects = check.suspects.get(split.name, [])
        for kind, of_kind in itertools.groupby(suspects, key=lambda each: each.kind):
            _print_lines(f"suspect: {kind} ({split.name})", list(map(str, of_kind)))
    for is_wrong, level in ((False, "note"), (True, "mistake")):
        problems = [each for each in check.problems if each.is_wrong == is_wrong]
        for kind, group in itertools.groupby(problems, key=lambda each: each.kind):
            title = f"{level}: {kind}, {KINDS[kind][0]}"
            _print_lines(title, list(map(str, group)), is_complete=is_wrong)
    num_wrong = sum(problem.is_wrong for problem in check.problems)
    print(f"{num_wrong or 'no'} {'mistake' if num_wrong == 1 else 'mistakes'}")


def _print_lines(
    title: str, lines: Sequence[str], *, is_complete: bool = False
) -> None:
    print(f"{title} ({len(lines)})")
    shown = lines if is_complete else lines[:_MAX_LINES]
    for line in shown:
        print(f"  {line}")
    if len(shown) < len(lines):
        print(f"  and {len(lines) - len(shown)} more: --json lists all")


def _print_table(console: Console, table: Table) -> None:
    print(table.title)
    shown = RichTable(box=None)
    for index, name in enumerate(table.header):
        shown.add_column(Text(name), justify="right" if index else "left")
    for row in table.rows:
        shown.add_row(*map(Text, row))
    console.print(shown)
    console.print()
