"""Prints a checked data set."""

import itertools

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from frcnn_jax.checking import tables
from frcnn_jax.checking.check import DataCheck
from frcnn_jax.checking.problems import KINDS, Problem
from frcnn_jax.report.tables import Table

_WIDTH = 200  # of a table that is not printed to a terminal
_MAX_TOLD = 10  # lines of each kind; of mistakes all are printed


def print_check(check: DataCheck) -> None:
    """Prints tables, what is worth a look, and every mistake."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    for table in tables.all_tables(check):
        _print_table(console, table)
    for note in check.notes:
        print(f"note: {note}")
    for is_wrong in (False, True):
        chosen = [each for each in check.problems if each.is_wrong == is_wrong]
        for kind, group in itertools.groupby(chosen, key=lambda each: each.kind):
            _print_problems(kind, list(group), is_wrong)
    num_wrong = sum(problem.is_wrong for problem in check.problems)
    print(f"{num_wrong or 'no'} {'mistake' if num_wrong == 1 else 'mistakes'}")


def _print_problems(kind: str, problems: list[Problem], is_wrong: bool) -> None:
    level = "mistake" if is_wrong else "note"
    print(f"{level}: {kind}, {KINDS[kind][0]} ({len(problems)})")
    shown = problems if is_wrong else problems[:_MAX_TOLD]
    for problem in shown:
        print(f"  {problem}")
    if len(problems) > len(shown):
        print(f"  and {len(problems) - len(shown)} more, which --json lists")


def _print_table(console: Console, table: Table) -> None:
    print(table.title)
    shown = RichTable(box=None)
    for index, name in enumerate(table.header):
        shown.add_column(Text(name), justify="right" if index else "left")
    for row in table.rows:
        shown.add_row(*map(Text, row))
    console.print(shown)
    console.print()
