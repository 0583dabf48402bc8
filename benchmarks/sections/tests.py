"""The slow tests of what computes on the device."""

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
SLOW = (
    *("-m", "slow", "-n", "4", "tests/models", "tests/parity", "tests/evaluation"),
    *("tests/export", "tests/training/test_step.py", "tests/training/test_train.py"),
    *("tests/training/test_batches.py", "tests/training/test_lowering.py"),
)
QUICK = ("-n", "1", "tests/ops/test_boxes.py", "-k", "area")
MAX_NAMES = 10  # of failed tests, in the table


def tasks(scale: Scale) -> Iterator[Task]:
    arguments = QUICK if scale is TINY else SLOW
    yield Task("tests", "", functools.partial(_test, arguments))


def _test(arguments: Sequence[str]) -> Iterator[Figure]:
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider"]
    began, line, note = time.perf_counter(), "", ""
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
            note = ", out of time"
    counts = ", ".join(f"{len(each)} {outcome}" for outcome, each in names.items())
    failed = [name.split("::")[-1] for name in names["failed"] + names["error"]]
    seconds = time.perf_counter() - began
    note = f"{counts or line.strip()} in {seconds:.0f} s{note}"
    yield Figure("slow tests", "", note=": ".join([note, *failed[:MAX_NAMES]]))
