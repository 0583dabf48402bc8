"""Reads the detector in a run's checkpoint, without the state of its training.

A checkpoint is a folder `checkpoints/STEP` of a run directory. Its items are `detector`
(a `DetectorSpec`), `params`, perhaps `ema` (their moving average), `optimizer`,
`progress` and `metrics` (the validation's figures).
"""

import json
import re
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from frcnn_jax import distributed
from frcnn_jax.config import DetectorSpec
from frcnn_jax.errors import UserError
from frcnn_jax.files import expand_home
from frcnn_jax.models.parameters import flatten
from frcnn_jax.weights.importing import read_weights
from frcnn_jax.weights.record import Weights
from frcnn_jax.weights.sources import is_repository

# The figure that chooses the best checkpoint.
BEST_METRIC = "validation_voc07_map"


def read_checkpoint(path: Path, step: int | str = "latest") -> Weights:
    """Reads the detector of a checkpoint: the moving average if there is one.

    Args:
      path: run directory, or one of its checkpoints.
      step: of the checkpoint in a run directory, or "latest", or "best", of those that
        were validated.

    Raises:
      UserError: if there is no such checkpoint, it is damaged, it is of an earlier
        version, or a step is given for something that is not a run directory.
    """
    if not (path / "params").is_dir():  # not a checkpoint of any version
        path = path / "checkpoints" / str(find_step(path, step))
    elif step != "latest":
        raise UserError(f"{path}: is a checkpoint; step {step} needs a run directory")
    spec = read_spec(path)
    # Orbax wants an absolute path.
    item = (path / ("ema" if (path / "ema").is_dir() else "params")).absolute()
    try:
        shapes = ocp.StandardCheckpointHandler().metadata(item).tree
        # On the devices of this process, which may differ from those that saved it.
        shapes = distributed.replicated_shapes(shapes, distributed.make_mesh())
        with ocp.StandardCheckpointer() as checkpointer:
            params = checkpointer.restore(item, shapes)
    except (MemoryError, jax.errors.JaxRuntimeError):
        raise  # not the checkpoint's fault
    except Exception as error:  # Orbax raises nothing more specific
        raise UserError(f"{path}: cannot be read: {reason(error)}") from error
    return Weights.of_detector(spec, flatten(params), source=str(path))


def read_source(source: str, step: int | str = "latest") -> Weights:
    """Reads the weights of a run directory or a checkpoint, or else of a file.

    Args:
      source: run directory or checkpoint, or what `read_weights` takes.
      step: of a run directory's checkpoint, or "latest" or "best".

    Raises:
      UserError: if it cannot be read, or a step is given without a run directory.
    """
    path = expand_home(source)
    if path.is_dir() and not is_repository(path):
        return read_checkpoint(path, step)
    check_no_step(source, step)
    return read_weights(source)


def check_no_step(source: str | Path, step: int | str) -> None:
    """Refuses a step of what is not a run directory.

    Args:
      source: what is to be read.
      step: as given.

    Raises:
      UserError: if the step is not the default.
    """
    if step != "latest":
        raise UserError(f"{source}: step {step} needs a run directory")


def read_spec(path: Path) -> DetectorSpec:
    """Reads what a checkpoint's parameters need.

    Args:
      path: of the checkpoint.

    Raises:
      UserError: if it is damaged or of an earlier version.
    """
    if (path / "preprocessing").is_dir():
        raise UserError(
            f"{path}: has no class names, as checkpoints of earlier versions: train "
            "again in a new --work-dir"
        )
    try:
        values = json.loads((path / "detector" / "metadata").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {reason(error)}") from None
    return DetectorSpec.from_dict(values, where=f"{path}: cannot be read")


def find_step(work_dir: Path, step: int | str) -> int:
    """Finds a checkpoint in a run directory.

    Args:
      work_dir: the run directory.
      step: of the checkpoint, or "latest", or "best", of those that were validated.

    Raises:
      UserError: if there is no such checkpoint.
    """
    folder = work_dir / "checkpoints"
    steps = list_steps(folder)
    if not steps:
        raise UserError(f"{folder}: no checkpoint there yet")
    if step == "latest":
        return steps[-1]
    if step == "best":
        validated = [
            (value, s) for s in steps if (value := _metric(folder, s)) is not None
        ]
        if not validated:
            raise UserError(f"{folder}: no checkpoint was validated")
        return max(validated)[1]
    if step not in steps:
        listed = ", ".join(map(str, steps))
        raise UserError(f"{folder}: no checkpoint {step}, only {listed}")
    return int(step)


def list_steps(folder: Path) -> list[int]:
    """Lists the steps of the finished checkpoints in a run's `checkpoints/`, sorted."""
    names = [path.name for path in folder.glob("[0-9]*") if path.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal())


def reason(error: BaseException) -> str:
    """Returns an error's reason in one line, without TensorStore's specifications."""
    error = error.__cause__ or error
    line = (str(error) or type(error).__name__).splitlines()[0]
    system = re.search(r"([^:]+) \[os_error_code", line)
    return system[1].strip() if system else line.split(" [tensorstore_spec")[0]


def _metric(folder: Path, step: int) -> float | None:
    """Reads the figure of a validated checkpoint; None without one."""
    try:
        metrics: Any = json.loads(
            (folder / str(step) / "metrics" / "metrics").read_text()
        )
        return metrics[BEST_METRIC]
    except (OSError, ValueError, KeyError, TypeError):
        return None
