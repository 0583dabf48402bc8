"""Watches the steps of a run: means for the log, bad steps by image, hardest images."""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from frcnn_jax.data.records import Batch, abbreviate
from frcnn_jax.errors import UserError
from frcnn_jax.models import Losses
from frcnn_jax.training.step import Metrics

NUM_HARDEST = 10

# The loss of an image, None where it is not finite, as JSON needs it; and its id.
Hard = tuple[float | None, str]

LOSSES = Losses._fields[:4]  # those that `Losses.total` adds up


class Watch:
    """What happened since the last row of the log, and since the epoch began.

    Metrics stay on the device until a row is due, so that steps follow one another
    without waiting. `state` and `restore` carry an open window through a checkpoint.
    """

    def __init__(
        self, image_ids: Sequence[str], steps_per_epoch: int, max_bad_steps: int
    ) -> None:
        """Begins now.

        Args:
          image_ids: of the training images.
          steps_per_epoch: after which the hardest images are found anew.
          max_bad_steps: left-out updates that end the run.
        """
        self.bad_steps: list[dict[str, Any]] = []  # rows for the log; it clears them
        self.hardest: list[dict[str, Any]] = []  # likewise
        self._image_ids = image_ids
        self._steps_per_epoch = steps_per_epoch
        self._max_bad_steps = max_bad_steps
        self._pending: list[tuple[int, Metrics]] = []
        self._window: list[dict[str, float]] = []
        self._epoch: list[Hard] = []  # the hardest so far, hardest first
        self._num_bad_steps = 0
        self._begin()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, made of what JSON can hold."""
        self._read()
        return {"window": self._window, "epoch": self._epoch}

    def restore(self, state: dict[str, Any], num_bad_steps: int) -> None:
        """Goes on from where `state` was taken."""
        self._window = list(state["window"])
        self._epoch = [tuple(entry) for entry in state["epoch"]]
        self._num_bad_steps = num_bad_steps

    def wait_for(self, batches: Iterator[Batch]) -> Batch:
        """Takes the next batch and counts the seconds it takes to come."""
        asked = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - asked
        return batch

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Does not count the time of what is done inside."""
        self._read()  # waits for the steps, whose time counts
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def add(self, step: int, metrics: Metrics) -> None:
        """Takes the metrics of a step, counted from 1."""
        self._pending.append((step, metrics))

    def check(self) -> None:
        """Ends a run that does not get anywhere.

        Raises:
          UserError: after `max_bad_steps` steps that were not finite.
        """
        if self._num_bad_steps >= self._max_bad_steps:
            raise UserError(
                f"{self._num_bad_steps} updates were left out for a loss or gradient "
                "that is not finite, as many as max_bad_steps; see bad_steps.jsonl for "
                "their images"
            )

    def close(self, step: int) -> dict[str, float]:
        """Waits for the steps, returns the means of the window, begins another."""
        self._read()
        seconds = time.perf_counter() - self._since
        names = self._window[0] if self._window else ()
        row = {
            name: float(np.mean([each[name] for each in self._window]))
            for name in names
        }
        row["epoch"] = step / self._steps_per_epoch
        row["bad_steps"] = self._num_bad_steps
        row["images_per_second"] = self._num_images / seconds
        row["input_wait_share"] = self._waited / seconds
        self._begin()
        self._window = []
        return row

    def _begin(self) -> None:
        self._since = time.perf_counter()
        self._waited = 0.0  # seconds
        self._num_images = 0

    def _read(self) -> None:
        pending, self._pending = jax.device_get(self._pending), []
        for step, metrics in pending:
            self._num_images += int(metrics.image_mask.sum())
            self._num_bad_steps = int(metrics.num_bad_steps)
            if metrics.is_good:
                self._window.append(_means(metrics))
            else:
                self._report(step, metrics)
            self._rank(step, metrics)

    def _report(self, step: int, metrics: Metrics) -> None:
        bad = []
        for name in LOSSES:
            values = getattr(metrics.losses, name)
            wrong = metrics.image_mask & ~np.isfinite(values)
            bad += [f"{name} of image {i}" for i in self._ids(metrics, wrong)]
        if not bad:
            ids = abbreviate(self._ids(metrics, metrics.image_mask))
            bad = [f"gradient of images {ids}"]
        self.bad_steps.append({"step": step, "not_finite": bad})

    def _rank(self, step: int, metrics: Metrics) -> None:
        totals = metrics.losses.total[metrics.image_mask].tolist()
        losses = [loss if math.isfinite(loss) else None for loss in totals]
        ids = self._ids(metrics, metrics.image_mask)
        ranked = sorted([*self._epoch, *zip(losses, ids, strict=True)], key=_rank_key)
        self._epoch = ranked[:NUM_HARDEST]
        if step % self._steps_per_epoch == 0:
            images = [{"image_id": i, "loss": loss} for loss, i in self._epoch]
            epoch = step // self._steps_per_epoch
            self.hardest.append({"step": step, "epoch": epoch, "images": images})
            self._epoch = []

    def _ids(self, metrics: Metrics, chosen: np.ndarray) -> list[str]:
        return [self._image_ids[index] for index in metrics.indices[chosen]]


def _rank_key(hard: Hard) -> tuple[float, str]:
    """Orders by loss, what is not finite before all; ties by id."""
    loss, image_id = hard
    return (-math.inf if loss is None else -loss), image_id


def _means(metrics: Metrics) -> dict[str, float]:
    """Averages over the real images of a step."""
    columns = {"loss": metrics.losses.total} | metrics.losses._asdict()
    means = {
        name: float(np.mean(values[metrics.image_mask], dtype=np.float64))
        for name, values in columns.items()
    }
    return means | {"gradient_norm": float(metrics.gradient_norm)}
