"""The tests of what computes on the device: of exact ops, then the slow ones."""

import collections
import functools
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.figures import Figure, Task, TimeUp
from benchmarks.sections.scales import TINY, Scale

ROOT = Path(__file__).parents[2]
# Where ties, NaN and rounding decide.
OPS = (
    *("-n", "4", "tests/ops/test_suppression.py", "tests/ops/test_proposals.py"),
    *("tests/ops/test_sampling.py", "tests/ops/test_targets.py"),
    "tests/ops/test_golden.py",
)
SLOW = (
    *("-m", "slow", "-n", "4", "tests/models", "tests/parity", "tests/evaluation"),
    *("tests/export", "tests/training/test_step.py", "tests/training/test_train.py"),
    *("tests/training/test_batches.py", "tests/training/test_lowering.py"),
)
QUICK = ("-n", "1", "tests/ops/test_boxes.py", "-k", "area")
MAX_NAMES = 10  # of failed tests, in the table


def tasks(scale: Scale) -> Iterator[Task]:
    suites = {"tests of ops": OPS, "slow tests": SLOW}
    for name, arguments in suites.items():
        chosen = QUICK if scale is TINY else arguments
        yield Task(name, "", functools.partial(_test, name, chosen))


def _test(name: str, arguments: Sequence[str]) -> Iterator[Figure]:
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider"]
    began, line, is_time_up = time.perf_counter(), "", False
    names = collections.defaultdict(list)
    with subprocess.Popen(
        [*command, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            for line in process.stdout:
                if match := re.search(r"\] (PASSED|FAILED|ERROR|SKIPPED) (\S+)", line):
                    names[match[1].lower()].append(match[2])
        except TimeUp:
            process.terminate()
            is_time_up = True
    counts = ", ".join(f"{len(each)} {outcome}" for outcome, each in names.items())
    failed = [each.split("::")[-1] for each in names["failed"] + names["error"]]
    seconds = time.perf_counter() - began
    note = f"{counts or line.strip()} in {seconds:.0f} s"
    yield Figure(name, "", note=": ".join([note, *failed[:MAX_NAMES]]))
    if is_time_up:
        raise TimeUp
