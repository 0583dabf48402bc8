"""Short runs of the tiny detector, and what they leave behind."""

import contextlib
import dataclasses
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest

from frcnn_jax.config import Config
from frcnn_jax.training import metrics
from tests.helpers import tiny
from tests.helpers.run_files import ROOT, hash_checkpoint, repeatable_rows

# A moving mean, and all that a checkpoint may hold beside it.
CONFIG = dataclasses.replace(
    tiny.CONFIG,
    checkpoint_every=2,
    max_to_keep=5,
    data=dataclasses.replace(tiny.DATA, validation_split="test"),
    optimizer=dataclasses.replace(tiny.CONFIG.optimizer, ema_decay=0.9),
)


def config_in(folder: Path, **changes) -> Config:
    return dataclasses.replace(CONFIG, work_dir=str(folder), **changes)


def interrupted(run: Path, folder: Path) -> Path:
    """Copies a run of six steps as it was when step 4 had been saved."""
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "checkpoints" / "6")
    (folder / "evaluation.json").unlink()
    return folder


def assert_same(folder: Path, whole: Path) -> None:
    assert repeatable_rows(folder) == repeatable_rows(whole)
    assert hash_checkpoint(folder) == hash_checkpoint(whole)
    ours, theirs = (path / "evaluation.json" for path in (folder, whole))
    assert ours.read_bytes() == theirs.read_bytes()


@contextlib.contextmanager
def at_step(number: int, act: Callable[[], None]) -> Iterator[None]:
    """Does something when a run in this process has made a step."""
    add = metrics.MetricsAccumulator.add

    def add_and_act(self, step, metrics):
        add(self, step, metrics)
        if step == number:
            act()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics.MetricsAccumulator, "add", add_and_act)
        yield


def terminate() -> None:
    """Does to this process what a scheduler does."""
    os.kill(os.getpid(), signal.SIGTERM)


def command(folder: Path) -> dict:
    """Arguments to start `python train.py` with the config, in a process of its own."""
    config = folder.parent / "config.py"
    config.write_text(
        "from tests.helpers import runs\ndef get_config():\n    return runs.CONFIG\n"
    )
    arguments = ["--config", str(config), "--work-dir", str(folder)]
    return {
        "args": [sys.executable, "train.py", *arguments],
        "cwd": ROOT,
        "env": os.environ
        | {
            "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
            "JAX_DEFAULT_MATMUL_PRECISION": "highest",
            "JAX_NUMPY_RANK_PROMOTION": "raise",
        },
    }
