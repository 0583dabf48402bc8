"""Checkpoints through Orbax: parameters, the optimiser's state, preprocessing.

How the detector's pixels are preprocessed is part of a checkpoint, so that it is never
used with another way.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import orbax.checkpoint as ocp

from frcnn_jax.errors import UserError
from frcnn_jax.preprocessing import Preprocessing
from frcnn_jax.training.step import Params, TrainState

MAX_TO_KEEP = 2


class Detector(NamedTuple):
    """What a checkpoint has for use without further training."""

    path: Path
    params: Params
    preprocessing: Preprocessing


def open_checkpoints(work_dir: Path) -> ocp.CheckpointManager:
    """Opens `checkpoints/` of a run directory, for saving in the background."""
    return ocp.CheckpointManager(
        (work_dir / "checkpoints").absolute(),
        options=ocp.CheckpointManagerOptions(max_to_keep=MAX_TO_KEEP),
    )


def save(
    checkpoints: ocp.CheckpointManager, state: TrainState, preprocessing: Preprocessing
) -> None:
    """Saves the state under its step; returns before all is written."""
    checkpoints.save(
        int(state.step),
        args=ocp.args.Composite(
            params=ocp.args.StandardSave(state.params),
            optimizer=ocp.args.StandardSave(
                {"step": state.step, "opt_state": state.opt_state}
            ),
            preprocessing=ocp.args.JsonSave(dataclasses.asdict(preprocessing)),
        ),
    )


def restore_latest(
    checkpoints: ocp.CheckpointManager, state: TrainState, preprocessing: Preprocessing
) -> TrainState | None:
    """Reads the latest checkpoint; None when there is none.

    Args:
      checkpoints: of the run.
      state: an example, or its shapes and types.
      preprocessing: what the detector is going to be used with.

    Raises:
      UserError: if the checkpoint is damaged, of another model, or of a model with
        another preprocessing.
    """
    step = checkpoints.latest_step()
    if step is None:
        return None
    template = jax.tree.map(ocp.utils.to_shape_dtype_struct, state._asdict())
    params = template.pop("params")
    with _damage_is_an_error(checkpoints, step):
        restored = checkpoints.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(params),
                optimizer=ocp.args.StandardRestore(template),
                preprocessing=ocp.args.JsonRestore(),
            ),
        )
        there = Preprocessing.from_fields(restored.preprocessing)
    path = checkpoints.directory / str(step)
    check_preprocessing(path, there, preprocessing, "the config")
    return TrainState(params=restored.params, **restored.optimizer)


def read_detector(work_dir: Path) -> Detector:
    """Reads the parameters of a run's latest checkpoint.

    Raises:
      UserError: if there is none, or it is damaged.
    """
    if not (work_dir / "checkpoints").is_dir():
        raise UserError(f"{work_dir}/checkpoints: no checkpoint there yet")
    with open_checkpoints(work_dir) as checkpoints:
        step = checkpoints.latest_step()
        if step is None:
            raise UserError(f"{work_dir}/checkpoints: no checkpoint there yet")
        with _damage_is_an_error(checkpoints, step):
            restored = checkpoints.restore(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardRestore(),
                    preprocessing=ocp.args.JsonRestore(),
                ),
            )
            preprocessing = Preprocessing.from_fields(restored.preprocessing)
    return Detector(
        work_dir / "checkpoints" / str(step), restored.params, preprocessing
    )


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
def _damage_is_an_error(
    checkpoints: ocp.CheckpointManager, step: int
) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{checkpoints.directory}/{step}: {reason}") from error
