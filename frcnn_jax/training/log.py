"""The log of a run: `metrics.jsonl`, TensorBoard, a progress bar."""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from frcnn_jax.data.records import abbreviate
from frcnn_jax.files import os_errors_as_user_errors, replace_text
from frcnn_jax.training.tensorboard import EventFile

# What a printed line shows of a row, in order.
_PATTERNS = (
    "loss {loss:.3f}",
    "(rpn class {rpn_classification_loss:.3f}, box {rpn_localization_loss:.3f};",
    "roi class {roi_classification_loss:.3f}, box {roi_localization_loss:.3f}),",
    "recall {proposal_recall:.2f},",
    "validation {validation_loss:.3f},",
    "mAP {validation_voc07_map:.1%},",
    "{images_per_second:.1f} images/s,",
    "input wait {input_wait_share:.0%}",
)
_LOGS = ("metrics", "bad_steps", "hardest_images")
_NUM_SHOWN = 5  # of the hardest images; the file has them all


class RunLog:
    """Writes rows of figures to files and screen; a context manager."""

    def __init__(
        self, work_dir: Path, start_step: int, num_steps: int, log_hardest: bool
    ) -> None:
        """Opens the files, and drops the rows that a resumed run will write again.

        Args:
          work_dir: the run directory.
          start_step: steps made so far.
          num_steps: steps in all.
          log_hardest: whether `write_hardest` writes anything.

        Raises:
          UserError: here and later, if a file cannot be written.
        """
        self._work_dir = work_dir
        self._log_hardest = log_hardest
        for name in _LOGS:
            path = work_dir / f"{name}.jsonl"
            with os_errors_as_user_errors(path):
                if path.exists():
                    _keep_rows(path, start_step)
        with os_errors_as_user_errors(work_dir / "tensorboard"):
            self._events = EventFile(work_dir / "tensorboard", start_step + 1)
        self._console = Console(highlight=False)
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(
            "train", total=num_steps, completed=start_step
        )

    def __enter__(self) -> "RunLog":
        """Shows the progress bar."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Closes everything."""
        self._progress.stop()
        with os_errors_as_user_errors(self._work_dir / "tensorboard"):
            self._events.close()

    def write(
        self,
        step: int,
        values: Mapping[str, float],
        pictures: Mapping[str, Image.Image] | None = None,
    ) -> None:
        """Adds a row to `metrics.jsonl` and TensorBoard, and shows it.

        Args:
          step: counted from 1.
          values: by name. One that is not finite becomes null: JSON has no NaN.
          pictures: for TensorBoard, by name.
        """
        finite = {n: v if math.isfinite(v) else None for n, v in values.items()}
        self._append("metrics", {"step": step, **finite})
        with os_errors_as_user_errors(self._work_dir / "tensorboard"):
            self._events.write(step, finite, pictures or {})
        self._show(f"step {step}: {_describe(values)}")
        self._progress.update(self._task, completed=step)

    def write_bad(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds steps that were not finite to `bad_steps.jsonl`, and shows them."""
        for row in rows:
            self._append("bad_steps", row)
            bad = abbreviate(row["not_finite"])
            self._show(f"step {row['step']}: update skipped, not finite: {bad}")

    def write_hardest(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds epochs' hardest images to `hardest_images.jsonl`, and shows them."""
        for row in rows if self._log_hardest else ():
            self._append("hardest_images", row)
            images = ", ".join(
                f"{image['image_id']} {_number(image['loss'])}"
                for image in row["images"][:_NUM_SHOWN]
            )
            self._show(f"epoch {row['epoch']}: largest losses: {images}")

    def _show(self, line: str) -> None:
        # Ids may have brackets, which are not markup.
        self._console.print(line, soft_wrap=True, markup=False, emoji=False)

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        path = self._work_dir / f"{name}.jsonl"
        with os_errors_as_user_errors(path), path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _describe(values: Mapping[str, float]) -> str:
    parts = []
    for pattern in _PATTERNS:
        with contextlib.suppress(KeyError):  # the row has no such value
            parts.append(pattern.format(**values))
    return " ".join(parts).removesuffix(",")


def _number(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.2f}"


def _keep_rows(path: Path, last_step: int) -> None:
    """Drops the rows after a step, and a row that a kill cut off."""
    lines = path.read_text(errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if _step_of(line) <= last_step]
    replace_text(path, "".join(kept))


def _step_of(line: str) -> float:
    """Returns the step of a row; infinity for a row that is cut off."""
    try:
        return float(json.loads(line)["step"]) if line.endswith("\n") else math.inf
    except (ValueError, TypeError, KeyError):
        return math.inf
