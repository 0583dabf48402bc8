"""Ours beside the peer's: in turn in one process, then each alone in its own."""

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.timing import time_in_turn

HEADER = "| | ours, ms | peer, ms | peer / ours |\n|---|---:|---:|---:|"
NAMES = ("ours", "peer")

# Prepares a side and returns what is timed.
Side = Callable[[], Callable[[], Any]]


def add_arguments(parser: argparse.ArgumentParser, repeats: int) -> None:
    """Adds `--repeats` and `--only`."""
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--only", choices=NAMES, help="one side, alone; in seconds")


def time_one(side: Side, repeats: int) -> None:
    """Times a side alone in this process, and prints its median in seconds."""
    print(*time_in_turn([side()], repeats))


def compare(
    module: str,
    name: str,
    sides: Mapping[str, Side],
    repeats: int,
    *,
    arguments: tuple[str, ...] = (),
    check: Callable[..., None] | None = None,
) -> None:
    """Times both sides both ways and prints a row for each.

    Args:
      module: the benchmark, which times one side by `--only`.
      name: of the rows.
      sides: by the names of NAMES.
      repeats: runs that are timed.
      arguments: of the benchmark's command line, besides `--only` and `--repeats`.
      check: is called first with what each side returns.
    """
    runs = [sides[each]() for each in NAMES]
    if check is not None:
        check(*(run() for run in runs))
    _print_row(f"{name}, in turn in one process", *time_in_turn(runs, repeats))
    del runs  # the memory of both sides
    command = [sys.executable, "-m", module, *arguments, "--repeats", str(repeats)]
    alone = []
    for each in NAMES:
        done = subprocess.run(
            [*command, "--only", each], check=True, stdout=subprocess.PIPE
        )
        alone.append(float(done.stdout))
    _print_row(f"{name}, each alone in its process", *alone)


def _print_row(name: str, seconds: float, peer_seconds: float) -> None:
    ratio = peer_seconds / seconds
    print(
        f"| {name} | {seconds * 1e3:.0f} | {peer_seconds * 1e3:.0f} | {ratio:.2f} |",
        flush=True,
    )
