"""`frcnn benchmark`: how long a detector takes on this machine.

From pixels on the host to detections on the host. Reading and resizing files is not
included.
"""

import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from frcnn_jax import distributed
from frcnn_jax.data.records import Batch, empty_batch
from frcnn_jax.detector import Detector, DetectStep, make_detect_step
from frcnn_jax.errors import UserError
from frcnn_jax.models.parameters import Params, abstract_detector


class Timing(NamedTuple):
    """What was measured for a canvas and a batch size."""

    canvas: tuple[int, int]  # (height, width), pixels
    batch_size: int
    compile_seconds: float  # without a cache of compiled programs
    seconds: list[float]  # of each run
    memory: int  # bytes that the device needs, arguments included

    @property
    def images_per_second(self) -> float:
        """By the median of the runs."""
        return self.batch_size / statistics.median(self.seconds)


def benchmark(
    source: str, step: int | str, *, batch_sizes: Sequence[int], repeats: int
) -> list[Timing]:
    """Times detection for each canvas and batch size, and prints a table.

    Args:
      source: of the detector; see `Detector.load`.
      step: of a run's checkpoint.
      batch_sizes: images computed at once.
      repeats: timed runs per setting, after one warm-up run.

    Raises:
      UserError: if there is no such detector, or an option is impossible.
    """
    for name, value in (("--batch-sizes", min(batch_sizes)), ("--repeats", repeats)):
        if value < 1:
            raise UserError(f"{name} is {value}, expected a positive number")
    detector = Detector.load(source, step)
    mesh = distributed.make_mesh(1)
    graphdef, _ = abstract_detector(detector.spec.model, len(detector.class_names))
    detect = make_detect_step(graphdef, mesh)
    params = distributed.replicate(detector.params, mesh)
    timings = [
        _measure(detect, params, _noise(batch_size, canvas), repeats)
        for canvas in detector.spec.resizing.canvases
        for batch_size in batch_sizes
    ]
    _print_table(timings)
    return timings


def _measure(detect: DetectStep, params: Params, batch: Batch, repeats: int) -> Timing:
    began = time.perf_counter()
    compiled = detect.lower(params, batch).compile()
    compile_seconds = time.perf_counter() - began
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        jax.device_get(compiled(params, batch))
        seconds.append(time.perf_counter() - began)
    return Timing(
        batch.canvas,
        len(batch.images),
        compile_seconds,
        seconds[1:],  # the first run fills caches
        distributed.memory_needed(compiled)[0],
    )


def _noise(batch_size: int, canvas: tuple[int, int]) -> Batch:
    batch = empty_batch(batch_size, canvas, max_objects=1)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, batch.images.shape, np.uint8)
    return batch._replace(images=pixels)


def _print_table(timings: Sequence[Timing]) -> None:
    table = Table("canvas")
    headers = ("batch", "median ms", "best ms", "images/s", "compile s", "MiB")
    for header in headers:
        table.add_column(header, justify="right")
    for timing in timings:
        median, best = statistics.median(timing.seconds), min(timing.seconds)
        table.add_row(
            f"{timing.canvas[0]} x {timing.canvas[1]}",
            str(timing.batch_size),
            f"{1e3 * median:.1f}",
            f"{1e3 * best:.1f}",
            f"{timing.images_per_second:.1f}",
            f"{timing.compile_seconds:.1f}",
            f"{timing.memory / 2**20:.0f}",
        )
    console = Console()
    console.print(table)
    console.print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
