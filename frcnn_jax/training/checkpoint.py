"""Checkpoints of a training state, through Orbax."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp

from frcnn_jax.errors import UserError
from frcnn_jax.training.step import TrainState

MAX_TO_KEEP = 2


def open_checkpoints(work_dir: Path) -> ocp.CheckpointManager:
    """Opens `checkpoints/` of a run directory, for saving in the background."""
    return ocp.CheckpointManager(
        (work_dir / "checkpoints").absolute(),
        options=ocp.CheckpointManagerOptions(max_to_keep=MAX_TO_KEEP),
    )


def save(checkpoints: ocp.CheckpointManager, state: TrainState) -> None:
    """Saves the state under its step; returns before all is written."""
    checkpoints.save(int(state.step), args=ocp.args.StandardSave(state._asdict()))


def restore_latest(
    checkpoints: ocp.CheckpointManager, state: TrainState
) -> TrainState | None:
    """Reads the latest checkpoint; None when there is none.

    Args:
      checkpoints: of the run.
      state: an example, or its shapes and types.

    Raises:
      UserError: if the checkpoint is damaged or of another model.
    """
    step = checkpoints.latest_step()
    if step is None:
        return None
    template = jax.tree.map(ocp.utils.to_shape_dtype_struct, state._asdict())
    try:
        restored = checkpoints.restore(step, args=ocp.args.StandardRestore(template))
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{checkpoints.directory}/{step}: {reason}") from error
    return TrainState(**restored)
