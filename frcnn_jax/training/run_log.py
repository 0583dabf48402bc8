"""What a run tells while it trains: `metrics.jsonl`, TensorBoard, a progress bar."""

import json
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from tensorboardX import SummaryWriter


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
