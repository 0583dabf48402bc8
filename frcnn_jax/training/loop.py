"""The training run: from a config to a trained, evaluated detector."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from flax import nnx

from frcnn_jax.config import Config
from frcnn_jax.config_files import read_config, save_config
from frcnn_jax.data import pipeline
from frcnn_jax.data.records import Source
from frcnn_jax.data.sources import open_source
from frcnn_jax.errors import UserError
from frcnn_jax.evaluation import report, runner
from frcnn_jax.plotting import plot_metrics
from frcnn_jax.training import checkpoint
from frcnn_jax.training.optimizer import make_optimizer, make_schedule
from frcnn_jax.training.run_log import RunLog, Window
from frcnn_jax.training.start import start_detector
from frcnn_jax.training.step import (
    Params,
    TrainState,
    TrainStep,
    abstract_detector,
    make_train_step,
)

_logger = logging.getLogger(__name__)


def train(config: Config) -> dict[str, Any]:
    """Trains and evaluates; continues where the run directory's last checkpoint ends.

    Returns:
      what `evaluation.json` holds.

    Raises:
      UserError: if data, weights or run directory do not fit the config.
    """
    train_source, test_source = open_sources(config)
    config, graphdef, params = start_detector(config, train_source)
    work_dir = _prepare_work_dir(config)

    optimizer, state = _first_state(config, params)
    with checkpoint.open_checkpoints(work_dir) as checkpoints:
        restored = checkpoint.restore_latest(
            checkpoints, state, config.model.preprocessing
        )
        if restored is not None:
            state = restored
            _logger.info("continuing after step %d of %s", state.step, work_dir)
        if int(state.step) < config.num_steps:
            train_step = make_train_step(graphdef, optimizer)
            state = _run_steps(
                config, state, train_step, train_source, checkpoints, work_dir
            )
    plot_metrics(work_dir / "metrics.jsonl", work_dir / "losses.png")
    return _evaluate(config, graphdef, state.params, test_source, work_dir)


def evaluate(work_dir: Path, split: str | None = None) -> dict[str, Any]:
    """Evaluates the last checkpoint of a run directory.

    Args:
      work_dir: the run directory.
      split: of the run's data set; its test split when absent.

    Raises:
      UserError: if the directory has no config or no checkpoint.
    """
    config = read_config(work_dir / "config.json")
    source = open_source(config.data, split or config.data.test_split)
    detector = checkpoint.read_detector(work_dir)
    checkpoint.check_preprocessing(
        detector.path,
        detector.preprocessing,
        config.model.preprocessing,
        f"{work_dir}/config.json",
    )
    graphdef, expected = abstract_detector(config.model, len(source.class_names))
    if jax.tree.map(jnp.shape, detector.params) != jax.tree.map(jnp.shape, expected):
        raise UserError(
            f"{detector.path}: its parameters have other shapes than a detector of "
            f"{work_dir}/config.json with {len(source.class_names)} classes"
        )
    return _evaluate(config, graphdef, detector.params, source, work_dir)


def evaluate_pretrained(config: Config, split: str | None = None) -> dict[str, Any]:
    """Evaluates the whole detector that `model.pretrained` is, without training it.

    Args:
      config: its data set, and the run directory to write to.
      split: of the data set; its test split when absent.

    Raises:
      UserError: if the weights are not those of a whole detector of these classes.
    """
    source = open_source(config.data, split or config.data.test_split)
    if not config.model.pretrained:
        raise UserError("model.pretrained is empty, expected a detector's weights")
    config, graphdef, params = start_detector(config, source, whole=True)
    return _evaluate(config, graphdef, params, source, _prepare_work_dir(config))


def open_sources(config: Config) -> tuple[Source, Source]:
    """Opens the training and the test split, which must have the same classes."""
    train_source = open_source(config.data, config.data.train_split)
    test_source = open_source(config.data, config.data.test_split)
    for source in (train_source, test_source):
        pipeline.check_source(source, **pipeline.options(config.data))
    if train_source.class_names != test_source.class_names:
        raise UserError(
            f"data.train_split has the classes {train_source.class_names}, "
            f"data.test_split {test_source.class_names}, expected the same"
        )
    return train_source, test_source


def _first_state(
    config: Config, params: Params
) -> tuple[optax.GradientTransformation, TrainState]:
    optimizer = make_optimizer(config.optimizer, config.model.frozen_blocks)
    return optimizer, TrainState(jnp.int32(0), params, optimizer.init(params))


def _run_steps(
    config: Config,
    state: TrainState,
    train_step: TrainStep,
    source: Source,
    checkpoints: ocp.CheckpointManager,
    work_dir: Path,
) -> TrainState:
    start_step = int(state.step)
    batches = pipeline.train_batches(
        source,
        batch_size=config.batch_size,
        flip_probability=config.data.flip_probability,
        seed=config.seed,
        start_step=start_step,
        num_workers=config.data.num_workers,
        **pipeline.options(config.data),
    )
    key = jax.random.key(config.seed)
    schedule = make_schedule(config.optimizer)
    window = Window()
    with RunLog(work_dir, start_step, config.num_steps) as log:
        for step in range(start_step + 1, config.num_steps + 1):
            batch = window.wait_for(batches)
            state, metrics = train_step(state, key, batch)
            window.add(metrics)
            is_last = step == config.num_steps
            if step % config.log_every == 0 or is_last:
                learning_rate = {"learning_rate": float(schedule(step - 1))}
                log.write(step, window.close(config.batch_size) | learning_rate)
            if step % config.checkpoint_every == 0 or is_last:
                checkpoint.save(checkpoints, state, config.model.preprocessing)
        checkpoints.wait_until_finished()
    return state


def _evaluate(
    config: Config,
    graphdef: nnx.GraphDef,
    params: Params,
    source: Source,
    work_dir: Path,
) -> dict[str, Any]:
    evaluation = runner.evaluate(graphdef, params, source, config, work_dir)
    report.print_table(evaluation)
    return evaluation


def _prepare_work_dir(config: Config) -> Path:
    """Makes the run directory, or checks that it holds a run of the same config."""
    work_dir = Path(config.work_dir)
    path = work_dir / "config.json"
    if path.exists():
        changes = _differences(
            dataclasses.asdict(read_config(path)), dataclasses.asdict(config)
        )
        if changes:
            raise UserError(
                f"{work_dir} holds a run of another config ({', '.join(changes)}); "
                "choose another --work-dir"
            )
        return work_dir
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        save_config(config, path)
    except OSError as error:
        raise UserError(f"--work-dir {work_dir}: {error.strerror}") from None
    return work_dir


def _differences(
    old: dict[str, Any], new: dict[str, Any], prefix: str = ""
) -> list[str]:
    changes = []
    for name, value in new.items():
        if isinstance(value, dict):
            changes += _differences(old[name], value, f"{prefix}{name}.")
        elif old[name] != value and name != "work_dir":
            changes.append(f"{prefix}{name}: {old[name]} there, {value} now")
    return changes
