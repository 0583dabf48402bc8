"""Checkpoints through Orbax: all that a run needs to continue, to the bit.

That is the training state, whose step is also the position in the data, the data's
fingerprint and the log's open window; and the detector's spec, with which
`weights.checkpoints` reads the parameters alone.
"""

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from frcnn_jax import distributed
from frcnn_jax.config import DetectorSpec
from frcnn_jax.config.preprocessing import check_preprocessing
from frcnn_jax.errors import UserError
from frcnn_jax.files import free_name, os_errors_as_user_errors
from frcnn_jax.training.step import TrainState
from frcnn_jax.weights.checkpoints import BEST_METRIC, list_steps, read_spec, reason

_logger = logging.getLogger(__name__)

# What determines the arrays of each item of a checkpoint.
_DETERMINED_BY = {
    "params": "the number of classes and anchors or the sizes of the model",
    "ema": "the use of optimizer.ema_decay",
    "optimizer": "optimizer.name, frozen_blocks or the use of optimizer.clip_norm",
}


class _OtherArraysError(UserError):
    """A checkpoint is not damaged, but does not fit the config and the data."""


class Progress(NamedTuple):
    """How far a run has come, besides its state; JSON can hold it."""

    data: dict[str, Any]  # the training data's fingerprint
    log: dict[str, Any]  # of `MetricsAccumulator`


def exists(work_dir: Path) -> bool:
    """Returns whether a run directory has a finished checkpoint."""
    return bool(list_steps(work_dir / "checkpoints"))


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
        return metrics.get(BEST_METRIC, -1.0)

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
    """Renames damaged metrics: Orbax reads all at once, and fails on a single one."""
    if distributed.is_main_process():
        for step in list_steps(folder):
            path = folder / str(step) / "metrics" / "metrics"
            try:
                json.loads(path.read_text())
            except FileNotFoundError:
                pass  # not validated
            except ValueError as error:
                _logger.warning("%s: %s; now as if not validated", path, error)
                with os_errors_as_user_errors(path):
                    path.rename(path.with_name("damaged"))
    distributed.wait_for_all_processes("metrics")


def save(
    checkpoints: ocp.CheckpointManager,
    state: TrainState,
    spec: DetectorSpec,
    progress: Progress,
    metrics: dict[str, float],
) -> None:
    """Saves the state under its step; returns before everything is written.

    Args:
      checkpoints: of the run.
      state: of the training.
      spec: of the detector.
      progress: fingerprint of the data and open window of the log.
      metrics: figures of the validation; empty without one.

    Raises:
      UserError: if this one, or the one before, cannot be written.
    """
    items = _items(state)
    with _failure_is_an_error(checkpoints):
        checkpoints.save(
            int(state.step),
            args=ocp.args.Composite(
                **{name: ocp.args.StandardSave(item) for name, item in items.items()},
                detector=ocp.args.JsonSave(spec.to_dict()),
                progress=ocp.args.JsonSave(progress._asdict()),
            ),
            metrics=metrics,
        )


def wait(checkpoints: ocp.CheckpointManager) -> None:
    """Waits until everything is written.

    Raises:
      UserError: if it cannot be.
    """
    with _failure_is_an_error(checkpoints):
        checkpoints.wait_until_finished()


def restore_latest(
    checkpoints: ocp.CheckpointManager, state: TrainState, spec: DetectorSpec
) -> tuple[TrainState, Progress]:
    """Restores the latest undamaged checkpoint.

    Later, damaged ones are renamed to `damaged-STEP`, with a warning.

    Args:
      checkpoints: of the run; there must be some.
      state: an example, or its shapes, dtypes and shardings.
      spec: of the detector to continue.

    Raises:
      UserError: if no checkpoint is undamaged, or the latest such one has another
        preprocessing or other arrays.
    """
    errors = {}
    for step in sorted(checkpoints.all_steps(), reverse=True):
        try:
            restored = _restore(checkpoints, step, state)
        except _OtherArraysError:
            raise
        except UserError as error:
            errors[step] = error
            continue
        path = checkpoints.directory / str(step)
        stored = read_spec(Path(path)).model.preprocessing
        check_preprocessing(
            str(path), stored, spec.model.preprocessing, expected_by="the config"
        )
        _rename_damaged(checkpoints, errors)
        return restored
    raise next(iter(errors.values()))


def _restore(
    checkpoints: ocp.CheckpointManager, step: int, state: TrainState
) -> tuple[TrainState, Progress]:
    read_spec(Path(checkpoints.directory / str(step)))  # of an earlier version?
    template = _items(jax.tree.map(ocp.utils.to_shape_dtype_struct, state))
    for name, item in template.items():
        _check_arrays(checkpoints, step, name, item)
    with _damage_is_an_error(checkpoints, step):
        restored = checkpoints.restore(
            step,
            args=ocp.args.Composite(
                **{n: ocp.args.StandardRestore(item) for n, item in template.items()},
                progress=ocp.args.JsonRestore(),
            ),
        )
        progress = Progress(**restored.progress)
    ema = restored.ema if state.ema is not None else None
    return TrainState(params=restored.params, ema=ema, **restored.optimizer), progress


def _check_arrays(
    checkpoints: ocp.CheckpointManager, step: int, name: str, template: Any
) -> None:
    """Checks that an item of a checkpoint has the arrays that the config needs."""
    path = Path(checkpoints.directory / str(step) / name)
    stored = {}
    if path.is_dir() or name != "ema":  # the other items are there, unless damaged
        with _damage_is_an_error(checkpoints, step):
            stored = _shapes(ocp.StandardCheckpointHandler().metadata(path).tree)
    if stored != _shapes(template):
        raise _OtherArraysError(
            f"{path}: does not fit the config and the data; a run cannot change "
            f"{_DETERMINED_BY[name]}: choose another --work-dir"
        )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each array by its path, but for the random key."""
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf.shape
        for path, leaf in jax.tree.leaves_with_path(tree)
    }
    shapes.pop("key", None)  # stored as raw data, of another shape
    return shapes


def _rename_damaged(
    checkpoints: ocp.CheckpointManager, errors: dict[int, UserError]
) -> None:
    for step, error in errors.items():
        if distributed.is_main_process():
            taken = {path.name for path in checkpoints.directory.iterdir()}
            name = free_name(f"damaged-{step}", taken)
            _logger.warning("skipped a damaged checkpoint, now %s: %s", name, error)
            (checkpoints.directory / str(step)).rename(checkpoints.directory / name)
    if errors:
        distributed.wait_for_all_processes("renamed")
        checkpoints.reload()


def _items(state: TrainState) -> dict[str, Any]:
    """Splits a state into the items of a checkpoint."""
    rest = state._asdict()
    items = {"params": rest.pop("params"), "ema": rest.pop("ema"), "optimizer": rest}
    return {name: item for name, item in items.items() if item is not None}


@contextlib.contextmanager
def _failure_is_an_error(checkpoints: ocp.CheckpointManager) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{checkpoints.directory}: cannot write a checkpoint: {reason(error)}; "
            "the earlier ones are intact"
        ) from error


@contextlib.contextmanager
def _damage_is_an_error(
    checkpoints: ocp.CheckpointManager, step: int
) -> Iterator[None]:
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError):
        raise  # not the checkpoint's fault
    except Exception as error:  # Orbax raises nothing more specific
        path = checkpoints.directory / str(step)
        raise UserError(f"{path}: cannot be read: {reason(error)}") from error
