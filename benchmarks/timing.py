"""Times functions side by side: interleaved, in one process, medians."""

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


class Case(NamedTuple):
    """One row of the table."""

    name: str
    size: str
    function: Callable  # of JAX
    arguments: tuple
    peer: Callable[[], Any] | None = None
    target: str = ""


class Row(NamedTuple):
    """What was measured of a case."""

    case: Case
    seconds: float
    peer_seconds: float | None
    compile_seconds: float
    memory: int  # bytes of results and temporary arrays

    def __str__(self) -> str:
        peer = ratio = "-"
        if self.peer_seconds is not None:
            peer = f"{self.peer_seconds * 1e3:.1f}"
            ratio = f"{self.peer_seconds / self.seconds:.2f}"
        return (
            f"| {self.case.name} | {self.case.size} | {self.seconds * 1e3:.1f} "
            f"| {peer} | {ratio} | {self.case.target} | {self.compile_seconds:.1f} "
            f"| {self.memory / 2**20:.0f} |"
        )


HEADER = """\
| op | size | ours, ms | peer, ms | peer / ours | target | compile, s | memory, MiB |
|---|---|---:|---:|---:|---|---:|---:|"""


def measure(case: Case, repeats: int) -> Row:
    """Compiles, runs once unseen, then ours and the peer's in turn; takes medians."""
    arguments = jax.device_put(case.arguments)
    begin = time.perf_counter()
    compiled = jax.jit(case.function).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - begin
    memory = compiled.memory_analysis()

    runs = [lambda: jax.block_until_ready(compiled(*arguments))]
    if case.peer is not None:
        runs.append(case.peer)
    medians = time_in_turn(runs, repeats)
    return Row(
        case,
        medians[0],
        medians[1] if case.peer else None,
        compile_seconds,
        memory.temp_size_in_bytes + memory.output_size_in_bytes,
    )


def time_in_turn(runs: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Runs each once unseen, then all in turn; returns the medians in seconds."""
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
