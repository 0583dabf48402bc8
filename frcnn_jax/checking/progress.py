"""Shows how far a long task is, on a terminal only."""

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def show_progress(items: Iterable[T], description: str, num_items: int) -> Iterable[T]:
    """Yields the items, with a bar on standard error that disappears at the end.

    Args:
      items: are made while the bar is shown.
      description: stands before the bar.
      num_items: how many items there will be.
    """
    console = Console(stderr=True)
    return track(
        items,
        description,
        total=num_items,
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
