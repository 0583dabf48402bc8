"""What a run tells while it trains: `metrics.jsonl`, TensorBoard, a progress bar."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from tensorboardX import SummaryWriter

from frcnn_jax.data.records import abbreviate


class RunLog:
    """Writes one row of numbers at a time; a context manager."""

    def __init__(
        self, work_dir: Path, start_step: int, num_steps: int, log_hardest: bool
    ) -> None:
        """Opens the files of a run, and cuts what a resumed run will write again.

        Args:
          work_dir: the run directory.
          start_step: updates made so far.
          num_steps: updates in all.
          log_hardest: whether `write_hardest` writes anything.
        """
        self._work_dir = work_dir
        self._log_hardest = log_hardest
        for path in work_dir.glob("*.jsonl"):
            _keep_rows(path, start_step)
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
            "train", total=num_steps, completed=start_step, text="first steps"
        )

    def __enter__(self) -> "RunLog":
        """Shows the progress bar."""
        self._progress.start()
        return self

    def __exit__(self, *_) -> None:
        """Closes everything."""
        self._progress.stop()
        self._writer.close()

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Adds the row of a step, counted from 1, to `metrics.jsonl`, and shows it."""
        self._append("metrics", {"step": step, **values})
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)
        text = _describe(values)
        self._progress.update(self._task, completed=step, text=text)
        if not self._console.is_terminal:
            self._console.print(f"step {step}: {text}", soft_wrap=True)

    def write_bad(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds steps that were not finite to `bad_steps.jsonl`, and shows them."""
        for row in rows:
            self._append("bad_steps", row)
            bad = abbreviate(row["not_finite"])
            line = f"step {row['step']}: update left out, not finite: {bad}"
            self._console.print(line, soft_wrap=True)

    def write_hardest(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds epochs to `hardest_images.jsonl`, and shows them."""
        for row in rows if self._log_hardest else ():
            self._append("hardest_images", row)
            images = [f"{i['image_id']} ({i['loss']:.2f})" for i in row["images"]]
            line = f"epoch {row['epoch']}, largest losses: {', '.join(images)}"
            self._console.print(line, soft_wrap=True)

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        with (self._work_dir / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def _describe(values: Mapping[str, float | None]) -> str:
    text = [
        f"{name.removesuffix('_loss').replace('_', ' ')} {value:.3f}"
        for name, value in values.items()
        if name.endswith(("loss", "_map")) and value is not None
    ]
    for name, pattern in (
        ("proposal_recall", "recall {:.2f}"),
        ("images_per_second", "{:.1f} images/s"),
        ("input_wait_share", "{:.0%} waiting for input"),
    ):
        if name in values:
            text.append(pattern.format(values[name]))
    return ", ".join(text)


def _keep_rows(path: Path, last_step: int) -> None:
    """Drops the rows after a step, and a last one that was cut off."""
    kept = [
        line
        for line in path.read_text().splitlines(keepends=True)
        if line.endswith("\n") and json.loads(line)["step"] <= last_step
    ]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    os.replace(temporary, path)  # a kill here loses nothing
