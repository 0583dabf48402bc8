"""Runs one section in this process: `python -m benchmarks.sections step`.

Figures are written as lines of JSON as they come. SIGTERM says that time is up.
"""

import argparse
import importlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, TimeUp, describe, format_row, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", help="a module of benchmarks.sections")
    parser.add_argument("--output", type=Path, required=True, help="file of JSON lines")
    parser.add_argument("--tiny", action="store_true", help="small and quick, to test")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, _raise_time_up)
    with args.output.open("a") as file:
        for figure in figures(args.section, tiny=args.tiny):
            file.write(json.dumps(figure._asdict()) + "\n")
            file.flush()
            print(format_row(figure), flush=True)


def figures(section: str, *, tiny: bool) -> Iterator[Figure]:
    """Yields a section's figures, and one that says why there are no more."""
    at_work = "its start"
    try:
        from benchmarks.sections.scales import FULL, TINY

        module = importlib.import_module(f"benchmarks.sections.{section}")
        for task in module.tasks(TINY if tiny else FULL):
            at_work = f"{task.name} {task.size}".strip()
            yield from run(task)
    except TimeUp:
        yield Figure(section, "", note=f"out of time at {at_work}")
    except Exception as error:
        yield Figure(section, "", note=f"failed: {describe(error)}")


def _raise_time_up(*_) -> None:
    raise TimeUp


if __name__ == "__main__":
    main()
