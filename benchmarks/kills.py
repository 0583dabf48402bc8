"""Kills a run again and again, and compares it with one that nothing interrupted.

`python -m benchmarks.kills` trains `configs/shapes.py`, made short, twice: in one go,
and killed (SIGKILL) at random moments, after each of which the same command starts it
again. The seed draws the moments: soon after the start, at random steps, while a
checkpoint is being written, and after the last one, while the run ends.

It prints each kill and where the run went on, and compares what both runs left behind:
the rows of `metrics.jsonl` to the last digit, except for the two figures that depend
on a clock; parameters, moving mean, optimizer and key of the last checkpoint; and
`evaluation.json`. The exit code is 1 if any of them differ.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.helpers.run_files import (
    ROOT,
    UNFINISHED,
    digest,
    has_logged,
    has_saved,
    hash_checkpoint,
    is_saving_after,
    last_step,
    repeatable_rows,
)

LOG_EVERY = 5  # steps


class Moment(NamedTuple):
    """When to kill: so many seconds after the run directory is as it should be."""

    text: str
    has_come: Callable[[Path], bool]
    delay: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-steps", type=int, default=800)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    moments = draw_moments(random.Random(args.seed), args.kills, args.num_steps)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        print(f"{args.num_steps} steps in one go", flush=True)
        run(shapes_command(whole, args.num_steps))
        print("\n| killed | last row | cut off | went on after |\n|---|---|---|---|")
        for moment in [*moments, None]:
            output = run(shapes_command(killed, args.num_steps), killed, moment)
            if moment != moments[0]:
                print(f" {went_on_after(output)} |", flush=True)
            if moment:
                print(f"| {moment.text} | {left_behind(killed)} |", end="", flush=True)
        sys.exit(0 if compare(whole, killed) else 1)


def draw_moments(rng: random.Random, num_kills: int, num_steps: int) -> list[Moment]:
    """Draws the moments of the kills, in the order in which they come."""
    moments = []
    for kill in range(num_kills):
        step = int(num_steps * (kill + rng.random()) / num_kills)
        text, delay = f"after the row of step {step}", rng.uniform(0.0, 1.0)
        moments.append(Moment(text, has_logged(step), delay))
    if num_kills > 1:
        moments[0] = Moment("soon after the start", lambda _: True, rng.uniform(0, 20))
        text, delay = "after the last checkpoint", rng.uniform(0.0, 3.0)
        moments[-1] = Moment(text, has_saved(num_steps), delay)
    middle = num_kills // 2
    has_come = is_saving_after(num_steps * middle // num_kills)
    moments[middle] = Moment("while a checkpoint is written", has_come)
    return moments


def run(
    command: list[str], work_dir: Path | None = None, moment: Moment | None = None
) -> str:
    """Runs a command, to its end or until it is killed; returns its output."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output
        )
        while moment and process.poll() is None:
            if moment.has_come(work_dir):
                time.sleep(moment.delay)
                process.kill()
                break
            time.sleep(0.001)  # a checkpoint of a small detector is quickly written
        code = process.wait()
        output.seek(0)
        text = output.read()
    if code != (-9 if moment else 0):
        sys.exit(f"{text}\n{' '.join(command)}: exit code {code}")
    return text


def shapes_command(work_dir: Path, num_steps: int) -> list[str]:
    """Returns the command that trains for so many steps."""
    options = {
        "work-dir": work_dir,
        "compilation-cache": work_dir.parent / "compilation_cache",
        "num-steps": num_steps,
        "log-every": LOG_EVERY,
        "checkpoint-every": max(num_steps // 4, 1),
        "optimizer.ema-decay": 0.9,
        "data.num-train-images": 200,
        "data.num-test-images": 16,
        "data.validation-split": "test",
    }
    given = [text for name, value in options.items() for text in (f"--{name}", value)]
    command = [sys.executable, "train.py", "--config", "configs/shapes.py", *given]
    return [str(each) for each in command]


def left_behind(work_dir: Path) -> str:
    """Lists what a kill left: the last row's step, and any unfinished checkpoint."""
    names = sorted(path.name for path in (work_dir / "checkpoints").glob(UNFINISHED))
    return f"{last_step(work_dir)} | {', '.join(names) or '-'}"


def went_on_after(output: str) -> str:
    """Finds in a run's output after which checkpoint it went on."""
    found = re.search(r"continuing after (step \d+)", output)
    return found[1] if found else "the start"


def compare(whole: Path, other: Path) -> bool:
    """Prints digests of what two runs left behind, and whether they are the same."""
    print("\n| SHA-256 of | in one go | killed | |\n|---|---|---|---|")
    kinds = {
        "rows of metrics.jsonl": lambda path: digest(
            json.dumps(repeatable_rows(path)).encode()
        ),
        "last checkpoint": hash_checkpoint,
        "evaluation.json": lambda path: digest((path / "evaluation.json").read_bytes()),
    }
    all_same = True
    for name, hash_of in kinds.items():
        ours, theirs = hash_of(whole), hash_of(other)
        same = ours == theirs
        all_same &= same
        print(f"| {name} | {ours} | {theirs} | {'same' if same else 'DIFFERENT'} |")
    return all_same


if __name__ == "__main__":
    main()
