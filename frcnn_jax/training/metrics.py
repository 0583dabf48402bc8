"""Accumulates metrics: means for the log, skipped steps by image, hardest images."""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array

from frcnn_jax.data.records import Batch, abbreviate
from frcnn_jax.errors import UserError
from frcnn_jax.models import Losses
from frcnn_jax.training.step import Metrics

NUM_HARDEST = 10

# Steps that run or wait on the device. More would keep more batches in memory, and a
# run from saving soon after SIGTERM.
_MAX_IN_FLIGHT = 2

# An image's loss, None where it is not finite, as JSON needs it, and its id.
ImageLoss = tuple[float | None, str]


class MetricsAccumulator:
    """Metrics since the last row of the log (the window), and since the epoch began.

    Metrics stay on the device until a row is due, so that no step waits for its own.
    `state` and `restore` carry an open window through a checkpoint.
    """

    def __init__(
        self, image_ids: Sequence[str], steps_per_epoch: int, max_bad_steps: int
    ) -> None:
        """Starts the clock of the first window.

        Args:
          image_ids: of the training images.
          steps_per_epoch: after which the ranking of hardest images starts again.
          max_bad_steps: skipped updates that end the run.
        """
        # Rows for the log, which clears them.
        self.bad_steps: list[dict[str, Any]] = []
        self.hardest: list[dict[str, Any]] = []
        self._image_ids = image_ids
        self._steps_per_epoch = steps_per_epoch
        self._max_bad_steps = max_bad_steps
        self._pending: list[tuple[int, Metrics]] = []
        self._window: list[dict[str, float]] = []
        self._epoch: list[ImageLoss] = []  # the hardest so far, hardest first
        self._num_bad_steps = 0
        self._start_window()

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint stores; JSON can hold it.

        It is written in the background, so that later steps must not change it.
        """
        self._fetch()
        return {"window": list(self._window), "epoch": list(self._epoch)}

    def restore(self, state: dict[str, Any], num_bad_steps: int) -> None:
        """Continues from where `state` was taken.

        Args:
          state: what `state` returned.
          num_bad_steps: skipped updates so far.
        """
        self._window = list(state["window"])
        self._epoch = [tuple(entry) for entry in state["epoch"]]
        self._num_bad_steps = num_bad_steps

    def next_batch(self, batches: Iterator[Batch]) -> Batch:
        """Takes the next batch, and times how long it takes to come."""
        start = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - start
        return batch

    @contextlib.contextmanager
    def exclude_from_timing(self) -> Iterator[None]:
        """Excludes the block from the window's time."""
        self._fetch()  # waits for the steps before it, whose time counts
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def add(self, step: int, metrics: Metrics) -> None:
        """Adds the metrics of a step, and waits for an earlier one.

        Args:
          step: counted from 1.
          metrics: may still be on the device.
        """
        self._pending.append((step, metrics))
        if len(self._pending) > _MAX_IN_FLIGHT:
            jax.block_until_ready(self._pending[-1 - _MAX_IN_FLIGHT])

    def raise_if_too_many_skipped(self) -> None:
        """Ends a run that makes no progress.

        Raises:
          UserError: after `max_bad_steps` steps that were not finite.
        """
        if self._num_bad_steps >= self._max_bad_steps:
            raise UserError(
                f"{self._num_bad_steps} updates were skipped for a loss or gradient "
                "that is not finite, which reaches max_bad_steps; see "
                "bad_steps.jsonl for their images"
            )

    def flush(self, step: int) -> dict[str, float]:
        """Waits for the steps and returns the window's means; starts a new window."""
        self._fetch()
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
        self._start_window()
        self._window = []
        return row

    def _start_window(self) -> None:
        self._since = time.perf_counter()
        self._waited = 0.0  # seconds
        self._num_images = 0

    def _fetch(self) -> None:
        pending, self._pending = jax.device_get(self._pending), []
        for step, metrics in pending:
            self._num_images += int(metrics.image_mask.sum())
            self._num_bad_steps = int(metrics.num_bad_steps)
            if metrics.is_finite:
                self._window.append(_means(metrics))
            else:
                self._report_bad_step(step, metrics)
            self._rank_images(step, metrics)

    def _report_bad_step(self, step: int, metrics: Metrics) -> None:
        bad = []
        for name in Losses._fields:
            values = getattr(metrics.losses, name)
            not_finite = metrics.image_mask & ~np.isfinite(values)
            bad += [f"{name} of image {i}" for i in self._ids(metrics, not_finite)]
        if not bad:
            ids = abbreviate(self._ids(metrics, metrics.image_mask))
            bad = [f"gradient of images {ids}"]
        self.bad_steps.append({"step": step, "not_finite": bad})

    def _rank_images(self, step: int, metrics: Metrics) -> None:
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

    def _ids(self, metrics: Metrics, mask: np.ndarray | Array) -> list[str]:
        return [self._image_ids[index] for index in metrics.indices[mask]]


def _rank_key(image_loss: ImageLoss) -> tuple[float, str]:
    """Sorts by descending loss, those not finite first; ties by id."""
    loss, image_id = image_loss
    return (-math.inf if loss is None else -loss), image_id


def _means(metrics: Metrics) -> dict[str, float]:
    """Averages over the real images of a step."""
    columns = {"loss": metrics.losses.total}
    columns |= metrics.losses._asdict() | metrics.stats._asdict()
    means = {
        name: float(np.mean(values[metrics.image_mask], dtype=np.float64))
        for name, values in columns.items()
    }
    return means | {"gradient_norm": float(metrics.gradient_norm)}
