"""Figures as rows of one table, and the tasks that measure them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple


class Figure(NamedTuple):
    """A row of the table; None is what was not measured."""

    name: str
    size: str
    seconds: float | None = None  # median
    peer_seconds: float | None = None
    images_per_second: float | None = None
    utilization: float | None = None  # share of the device's peak, MFU
    memory: int | None = None  # bytes
    peer_memory: int | None = None
    compile_seconds: float | None = None
    note: str = ""


class TimeUp(BaseException):
    """Ends a section that has used up its time; no task catches it by mistake."""


class Task(NamedTuple):
    """Measures some rows. A task that fails does not affect the others."""

    name: str
    size: str
    measure: Callable[[], Iterable[Figure]]


def run(task: Task) -> Iterator[Figure]:
    """Yields a task's figures as they come; if it fails, one whose note says why."""
    try:
        yield from task.measure()
    except Exception as error:
        yield Figure(task.name, task.size, note=f"failed: {describe(error)}")


def describe(error: Exception) -> str:
    """Returns a line that says what went wrong."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200].replace("|", "/")


# Header, field and how it is printed. The ratio belongs to no field.
_COLUMNS: Sequence[tuple[str, Callable[[Figure], Any]]] = (
    ("what", lambda figure: figure.name),
    ("size", lambda figure: figure.size),
    ("ours, ms", lambda figure: _number(figure.seconds, 1e3, 3)),
    ("peer, ms", lambda figure: _number(figure.peer_seconds, 1e3, 3)),
    ("peer / ours", lambda figure: _ratio(figure)),
    ("images/s", lambda figure: _number(figure.images_per_second, 1.0, 3)),
    ("MFU, %", lambda figure: _number(figure.utilization, 100.0, 2)),
    ("GiB", lambda figure: _number(figure.memory, 2**-30, 2)),
    ("peer, GiB", lambda figure: _number(figure.peer_memory, 2**-30, 2)),
    ("compile, s", lambda figure: _number(figure.compile_seconds, 1.0, 2)),
    ("", lambda figure: figure.note),
)


def format_table(figures: Iterable[Figure]) -> str:
    """Returns a Markdown table."""
    num_numbers = len(_COLUMNS) - 3
    lines = [
        "| " + " | ".join(header for header, _ in _COLUMNS) + " |",
        "|---|---|" + "---:|" * num_numbers + "---|",
    ]
    return "\n".join([*lines, *map(format_row, figures)])


def format_row(figure: Figure) -> str:
    """Returns a line of the table."""
    return "| " + " | ".join(cell(figure) for _, cell in _COLUMNS) + " |"


def _ratio(figure: Figure) -> str:
    if not figure.seconds or figure.peer_seconds is None:
        return ""
    return f"{figure.peer_seconds / figure.seconds:.2f}"


def _number(value: float | None, factor: float, digits: int) -> str:
    """Prints so many digits, and all those before the point."""
    if value is None:
        return ""
    value *= factor
    return f"{value:.0f}" if value >= 10 ** (digits - 1) else f"{value:.{digits}g}"
