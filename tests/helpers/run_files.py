"""Reads what a run leaves in its directory.

`benchmarks.kills` reads it, too, in an environment without pytest.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from frcnn_jax.training import checkpoint

ROOT = Path(__file__).parents[2]
FIGURES = ("voc07_map", "area_map", "coco", "per_class")  # of an evaluation
TIMES = ("images_per_second", "input_wait_share")  # a clock makes these figures
UNFINISHED = "*.orbax-checkpoint-tmp*"


def read_rows(work_dir: Path, name: str = "metrics", **options) -> list[dict[str, Any]]:
    """Reads a log; fails for NaN and infinity, which are not JSON.

    Args:
      work_dir: the run directory.
      name: of the log, without `.jsonl`.
      **options: of `json.loads`.
    """
    lines = (work_dir / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=_refuse, **options) for line in lines]


def repeatable_rows(work_dir: Path) -> list[dict[str, Any]]:
    """Reads the log without what a clock made; figures stay the text they are."""
    rows = read_rows(work_dir, parse_float=str, parse_int=str)
    return [{name: row[name] for name in row if name not in TIMES} for row in rows]


def last_step(work_dir: Path) -> int:
    """Returns the step of the last whole row of the log, 0 if there is none."""
    path = work_dir / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def has_logged(step: int) -> Callable[[Path], bool]:
    """Makes a predicate: has a run's log come to this step?"""
    return lambda work_dir: last_step(work_dir) >= step


def has_saved(step: int) -> Callable[[Path], bool]:
    """Makes a predicate: has a run this step's checkpoint?"""
    return lambda work_dir: (work_dir / "checkpoints" / str(step)).exists()


def is_saving_after(step: int) -> Callable[[Path], bool]:
    """Makes a predicate: is a run writing a checkpoint after this step?"""

    def is_saving(work_dir: Path) -> bool:
        unfinished = any((work_dir / "checkpoints").glob(UNFINISHED))
        return unfinished and last_step(work_dir) >= step

    return is_saving


def hash_checkpoint(work_dir: Path) -> str:
    """Digests all arrays of the last checkpoint, by name."""
    with checkpoint.open_checkpoints(work_dir) as checkpoints:
        step = checkpoints.latest_step()
        folder = checkpoints.directory / str(step)
        items = [n for n in ("params", "ema", "optimizer") if (folder / n).is_dir()]
        args = {name: ocp.args.StandardRestore() for name in items}
        restored = checkpoints.restore(step, args=ocp.args.Composite(**args))
    content = f"step {step}".encode()
    for name in items:
        for path, leaf in jax.tree.leaves_with_path(restored[name]):
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                leaf = jax.random.key_data(leaf)
            array = np.asarray(leaf)
            head = f"{name}{jax.tree_util.keystr(path)} {array.dtype} {array.shape}"
            content += head.encode() + array.tobytes()
    return digest(content)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")
