"""Checkpoints through Orbax: all that a run needs to go on, to the bit.

That is the training state, the position in the data, and the log's open window. How
the detector's pixels are preprocessed is part of a checkpoint, so that it is never used
with another way.
"""

import contextlib
import dataclasses
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from frcnn_jax import parallel
from frcnn_jax.errors import UserError
from frcnn_jax.preprocessing import Preprocessing
from frcnn_jax.training.step import Params, TrainState
from frcnn_jax.training.validation import BEST
from frcnn_jax.writing import writing

_logger = logging.getLogger(__name__)


class Progress(NamedTuple):
    """How far a run has come, besides its state. Made of what JSON can hold."""

    data: dict[str, Any]  # the next batch's number, and the data's fingerprint
    log: dict[str, Any]  # of `RunLog`


class Detector(NamedTuple):
    """What a checkpoint has for use without further training."""

    path: Path
    params: Params
    preprocessing: Preprocessing


@contextlib.contextmanager
def open_checkpoints(
    work_dir: Path, max_to_keep: int = 1
) -> Iterator[ocp.CheckpointManager]:
    """Opens `checkpoints/` of a run directory, for saving in the background.

    Args:
      work_dir: the run directory.
      max_to_keep: when saving, how many of the latest checkpoints stay; the best of the
        validated ones stays, too.

    Raises:
      UserError: at the end, if the last one cannot be written.
    """

    def rank(metrics: dict[str, float]) -> float:
        return metrics.get(BEST, -1.0)

    keep = [
        policies.LatestN(max_to_keep),
        policies.BestN(get_metric_fn=rank, n=1, keep_checkpoints_without_metrics=False),
    ]
    folder = (work_dir / "checkpoints").absolute()
    _drop_damaged_metrics(folder)
    checkpoints = ocp.CheckpointManager(
        folder,
        options=ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(keep), best_fn=rank
        ),
    )
    try:
        yield checkpoints
    finally:
        with _failure_is_an_error(checkpoints):
            checkpoints.close()


def _drop_damaged_metrics(folder: Path) -> None:
    """Renames them: Orbax reads all at once, and one would bar every checkpoint."""
    if parallel.is_first():
        for path in folder.glob("[0-9]*/metrics/metrics"):
            try:
                json.loads(path.read_text())
            except ValueError as error:
                _logger.warning("%s: %s; now as if not validated", path, error)
                with writing(path):
                    path.rename(path.with_name("damaged"))
    parallel.wait_for_all("metrics")


def save(
    checkpoints: ocp.CheckpointManager,
    state: TrainState,
    preprocessing: Preprocessing,
    progress: Progress,
    metrics: dict[str, float],
) -> None:
    """Saves the state under its step; returns before all is written.

    Raises:
      UserError: if this one, or the one before, cannot be written.
    """
    items = _items(state)
    with _failure_is_an_error(checkpoints):
        checkpoints.save(
            int(state.step),
            args=ocp.args.Composite(
                **{name: ocp.args.StandardSave(item) for name, item in items.items()},
                preprocessing=ocp.args.JsonSave(dataclasses.asdict(preprocessing)),
                progress=ocp.args.JsonSave(progress._asdict()),
            ),
            metrics=metrics,
        )


def wait(checkpoints: ocp.CheckpointManager) -> None:
    """Waits until all is written.

    Raises:
      UserError: if it cannot be.
    """
    with _failure_is_an_error(checkpoints):
        checkpoints.wait_until_finished()


def restore_latest(
    checkpoints: ocp.CheckpointManager, state: TrainState, preprocessing: Preprocessing
) -> tuple[TrainState, Progress] | None:
    """Reads the latest checkpoint that is whole; None when there is none at all.

    Damaged ones after it are set aside, as `damaged-STEP`, with a warning.

    Args:
      checkpoints: of the run.
      state: an example, or its shapes, types and shardings.
      preprocessing: what the detector is going to be used with.

    Raises:
      UserError: if no checkpoint is whole and of such a model, or the latest whole one
        is of a model with another preprocessing.
    """
    errors = {}
    for step in sorted(checkpoints.all_steps(), reverse=True):
        try:
            restored = _restore(checkpoints, step, state)
        except UserError as error:
            errors[step] = error
            continue
        path = checkpoints.directory / str(step)
        check_preprocessing(path, restored[2], preprocessing, "the config")
        _set_aside(checkpoints, errors)
        return restored[:2]
    for error in errors.values():
        raise error
    return None


def _restore(
    checkpoints: ocp.CheckpointManager, step: int, state: TrainState
) -> tuple[TrainState, Progress, Preprocessing]:
    template = _items(jax.tree.map(ocp.utils.to_shape_dtype_struct, state))
    with _damage_is_an_error(checkpoints, step):
        restored = checkpoints.restore(
            step,
            args=ocp.args.Composite(
                **{n: ocp.args.StandardRestore(item) for n, item in template.items()},
                preprocessing=ocp.args.JsonRestore(),
                progress=ocp.args.JsonRestore(),
            ),
        )
        preprocessing = Preprocessing.from_fields(restored.preprocessing)
        progress = Progress(**restored.progress)
    ema = restored.ema if state.ema is not None else None
    state = TrainState(params=restored.params, ema=ema, **restored.optimizer)
    return state, progress, preprocessing


def _set_aside(
    checkpoints: ocp.CheckpointManager, errors: dict[int, UserError]
) -> None:
    for step, error in errors.items():
        aside = checkpoints.directory / f"damaged-{step}"
        _logger.warning("skipped a damaged checkpoint, now %s: %s", aside.name, error)
        if parallel.is_first():
            (checkpoints.directory / str(step)).rename(aside)
    if errors:
        parallel.wait_for_all("set_aside")
        checkpoints.reload()


def _items(state: TrainState) -> dict[str, Any]:
    """Divides a state into the items of a checkpoint."""
    rest = state._asdict()
    items = {"params": rest.pop("params"), "ema": rest.pop("ema"), "optimizer": rest}
    return {name: item for name, item in items.items() if item is not None}


def read_detector(work_dir: Path, step: int | str = "latest") -> Detector:
    """Reads the parameters of a run's checkpoint, their moving mean if there is one.

    Args:
      work_dir: the run directory.
      step: of the checkpoint, or "latest", or "best", of those that were validated.

    Raises:
      UserError: if there is none, or it is damaged.
    """
    if not (work_dir / "checkpoints").is_dir():
        raise UserError(f"{work_dir}/checkpoints: no checkpoint there yet")
    with open_checkpoints(work_dir) as checkpoints:
        step = _find_step(checkpoints, step)
        with _damage_is_an_error(checkpoints, step):
            path = checkpoints.directory / str(step)
            item = "ema" if (path / "ema").is_dir() else "params"
            # The devices of this run, which may not be those that saved it.
            shapes = parallel.replicated_shapes(
                _read_shapes(path / item), parallel.make_mesh()
            )
            restored = checkpoints.restore(
                step,
                args=ocp.args.Composite(
                    preprocessing=ocp.args.JsonRestore(),
                    **{item: ocp.args.StandardRestore(shapes)},
                ),
            )
            preprocessing = Preprocessing.from_fields(restored.preprocessing)
    return Detector(path, restored[item], preprocessing)


def _read_shapes(path: Path) -> Params:
    """Reads the shapes and types of an item's arrays."""
    return ocp.StandardCheckpointHandler().metadata(path).tree


def _find_step(checkpoints: ocp.CheckpointManager, step: int | str) -> int:
    steps = checkpoints.all_steps()
    if not steps:
        raise UserError(f"{checkpoints.directory}: no checkpoint there yet")
    if step == "latest":
        return max(steps)
    if step == "best":
        if BEST not in (checkpoints.metrics(checkpoints.best_step()) or {}):
            raise UserError(f"{checkpoints.directory}: no checkpoint was validated")
        return checkpoints.best_step()
    if step not in steps:
        there = ", ".join(map(str, sorted(steps)))
        raise UserError(f"{checkpoints.directory}: no checkpoint {step}, only {there}")
    return step


def check_preprocessing(
    path: Path, there: Preprocessing, wanted: Preprocessing, by: str
) -> None:
    """Checks that a checkpoint is used with the preprocessing it was trained with.

    Args:
      path: of the checkpoint.
      there: what it was trained with.
      wanted: what it is going to be used with.
      by: who says so, for the error.

    Raises:
      UserError: if they differ.
    """
    if there != wanted:
        raise UserError(
            f"{path}: was trained with pixels {there}, but {by} has {wanted}"
        )


@contextlib.contextmanager
def _failure_is_an_error(checkpoints: ocp.CheckpointManager) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{checkpoints.directory}: cannot write a checkpoint: {_reason(error)}; "
            "the earlier ones are intact"
        ) from error


@contextlib.contextmanager
def _damage_is_an_error(
    checkpoints: ocp.CheckpointManager, step: int
) -> Iterator[None]:
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError):
        raise  # no fault of the checkpoint's
    except Exception as error:  # Orbax raises just that for an array cut off
        path = checkpoints.directory / str(step)
        raise UserError(f"{path}: cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Makes one line of an error, without the specifications of TensorStore's."""
    error = error.__cause__ or error
    line = (str(error) or type(error).__name__).splitlines()[0]
    system = re.search(r"([^:]+) \[os_error_code", line)
    return system[1].strip() if system else line.split(" [tensorstore_spec")[0]
