"""What a run tells while it trains: `metrics.jsonl`, TensorBoard, a progress bar."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from jax import Array
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from tensorboardX import SummaryWriter

from frcnn_jax.data.records import Batch


class Window:
    """What happened since the last row: the steps' metrics, and where time went."""

    def __init__(self) -> None:
        """Begins now."""
        self._begin()

    def wait_for(self, batches: Iterator[Batch]) -> Batch:
        """Takes the next batch and counts the seconds it takes to come."""
        asked = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - asked
        return batch

    def add(self, metrics: dict[str, Array]) -> None:
        """Keeps the metrics of a step on the device."""
        self._metrics.append(metrics)

    def close(self, batch_size: int) -> dict[str, float]:
        """Waits for the steps, returns the means of the window, begins another."""
        metrics = jax.device_get(self._metrics)
        seconds = time.perf_counter() - self._since
        row = {
            name: float(np.mean([step[name] for step in metrics]))
            for name in metrics[0]
        }
        row["images_per_second"] = len(metrics) * batch_size / seconds
        row["input_wait_share"] = self._waited / seconds
        self._begin()
        return row

    def _begin(self) -> None:
        self._metrics: list[dict[str, Array]] = []
        self._since = time.perf_counter()
        self._waited = 0.0  # seconds


class RunLog:
    """Writes one row of numbers at a time; a context manager."""

    def __init__(self, work_dir: Path, start_step: int, num_steps: int) -> None:
        """Opens the files of a run, and cuts what a resumed run will write again.

        Args:
          work_dir: the run directory.
          start_step: updates made so far.
          num_steps: updates in all.
        """
        path = work_dir / "metrics.jsonl"
        _keep_rows(path, start_step)
        self._rows = path.open("a")
        self._writer = SummaryWriter(
            str(work_dir / "tensorboard"), purge_step=start_step + 1
        )
        self._console = Console(highlight=False)
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(
            "train", total=num_steps, completed=start_step, text="compiling"
        )

    def __enter__(self) -> "RunLog":
        """Shows the progress bar."""
        self._progress.start()
        return self

    def __exit__(self, *_) -> None:
        """Closes everything."""
        self._progress.stop()
        self._writer.close()
        self._rows.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the row of a step, counted from 1."""
        self._rows.write(json.dumps({"step": step, **values}) + "\n")
        self._rows.flush()
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        text = ", ".join(
            f"{name.removesuffix('_loss').replace('_', ' ')} {value:.3f}"
            for name, value in values.items()
            if name.endswith("loss")
        )
        self._progress.update(self._task, completed=step, text=text)
        if not self._console.is_terminal:
            rate = values["images_per_second"]
            line = f"step {step}: {text}, {rate:.1f} images/s"
            self._console.print(line, soft_wrap=True)


def _keep_rows(path: Path, last_step: int) -> None:
    """Drops the rows after a step, and a last one that was cut off."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n") and json.loads(line)["step"] <= last_step:
            kept.append(line)
    path.write_text("".join(kept))
