"""Times functions side by side: interleaved, in one process, medians."""

import ctypes
import functools
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from frcnn_jax.evaluation.environment import processor_name

# Between two runs, so that the threads of the one before are asleep.
PAUSE_S = 0.01
# On an accelerator: calls in a row, unless they take longer than this.
MAX_CALLS_IN_A_ROW, SECONDS_IN_A_ROW = 10, 0.05
# Parameters of mallopt, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


class Case(NamedTuple):
    """One row of the table."""

    name: str
    size: str
    function: Callable  # of JAX
    arguments: tuple
    peer: Callable[[int], Any] | None = None  # called with how often to run
    min_ratio: float | None = None  # the target, of the peer's time to ours
    goal: str = ""  # another one, in words


class Row(NamedTuple):
    """What was measured of a case."""

    case: Case
    seconds: float
    peer_seconds: float | None
    compile_seconds: float
    memory: int  # bytes of results and temporary arrays

    @property
    def ratio(self) -> float | None:
        """The peer's time divided by ours."""
        return self.peer_seconds and self.peer_seconds / self.seconds

    def __str__(self) -> str:
        peer = ratio = "-"
        if self.ratio is not None:
            peer = f"{self.peer_seconds * 1e3:.1f}"
            ratio = f"{self.ratio:.2f}"
        minimum = self.case.min_ratio
        target = self.case.goal if minimum is None else f">= {minimum}"
        return (
            f"| {self.case.name} | {self.case.size} | {self.seconds * 1e3:.1f} "
            f"| {peer} | {ratio} | {target} | {self.compile_seconds:.1f} "
            f"| {self.memory / 2**20:.0f} |"
        )


HEADER = """\
| op | size | ours, ms | peer, ms | peer / ours | target | compile, s | memory, MiB |
|---|---|---:|---:|---:|---|---:|---:|"""


def measure(case: Case, repeats: int) -> Row:
    """Compiles, warms up, runs ours and the peer's in turn; takes medians."""
    arguments = jax.device_put(case.arguments)
    begin = time.perf_counter()
    compiled = jax.jit(case.function).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - begin
    memory = compiled.memory_analysis()

    def run(times: int) -> None:
        jax.block_until_ready([compiled(*arguments) for _ in range(times)])

    times = 1
    # An accelerator computes while the host prepares the next call.
    if jax.default_backend() != "cpu":
        times = min(times_within(run, SECONDS_IN_A_ROW), MAX_CALLS_IN_A_ROW)
    runs = [functools.partial(run, times)]
    if case.peer is not None:
        runs.append(functools.partial(case.peer, times))
    medians = time_in_turn(runs, repeats)
    return Row(
        case,
        medians[0] / times,
        medians[1] / times if case.peer else None,
        compile_seconds,
        memory.temp_size_in_bytes + memory.output_size_in_bytes,
    )


def keep_freed_memory() -> None:
    """Lets the C library reuse what a call has freed, instead of taking fresh pages.

    By default it returns large blocks to the system, and others depending on where they
    lie and on the thread that took them, which differs from run to run. A fresh page
    costs microseconds, so that luck decides some ratios. Call this before JAX starts.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_MMAP_THRESHOLD, 2**31 - 1)
        mallopt(_M_ARENA_MAX, 1)  # those of single threads are returned as a whole


def times_within(run: Callable[[int], Any], seconds: float) -> int:
    """Returns how often to run in a row to take this long, at least once."""
    run(1)
    began = time.perf_counter()
    run(1)
    return max(1, math.ceil(seconds / (time.perf_counter() - began)))


def time_in_turn(runs: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Returns the median seconds of runs in turn, after a warm-up run of each."""
    seconds = [[] for _ in runs]
    for repeat in range(repeats + 1):
        for run, durations in zip(runs, seconds, strict=True):
            time.sleep(PAUSE_S)
            begin = time.perf_counter()
            run()
            if repeat > 0:
                durations.append(time.perf_counter() - begin)
    return [statistics.median(durations) for durations in seconds]


def environment() -> str:
    """Describes the hardware and the versions in a line."""
    device = jax.devices()[0]
    name = device.device_kind
    if device.platform == "cpu":
        name = f"{os.cpu_count()} cores, {processor_name()}"
    versions = [f"Python {platform.python_version()}", f"jax {jax.__version__}"]
    try:
        import torch
        import torchvision
    except ImportError:
        pass
    else:
        versions += [
            f"torch {torch.__version__}",
            f"torchvision {torchvision.__version__}",
        ]
    return ", ".join([name, *versions])
