"""The training run: from a config to a trained, evaluated detector."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from frcnn_jax import parallel
from frcnn_jax.config import Config
from frcnn_jax.config_files import read_config
from frcnn_jax.data import pipeline
from frcnn_jax.data.records import Source
from frcnn_jax.data.sources import open_source
from frcnn_jax.errors import UserError
from frcnn_jax.evaluation import report, runner
from frcnn_jax.plotting import plot_metrics
from frcnn_jax.training import checkpoint, run_dir
from frcnn_jax.training.compilation import keep_compiled
from frcnn_jax.training.run import continue_or_start, plan_run, run_steps
from frcnn_jax.training.start import start_detector
from frcnn_jax.training.step import Params, abstract_detector, evaluated_params
from frcnn_jax.writing import writing

_logger = logging.getLogger(__name__)


class Sources(NamedTuple):
    """The splits of a data set, which have the same classes."""

    train: Source
    validation: Source | None
    test: Source


def train(config: Config) -> dict[str, Any] | None:
    """Trains and evaluates; continues where the run directory's last checkpoint ends.

    Returns:
      what `evaluation.json` holds; None if SIGTERM ended it, after a checkpoint.

    Raises:
      UserError: if data, weights or run directory do not fit the config, or the run
        cannot go on.
    """
    parallel.start_processes(config.distributed)
    run_dir.check_processes(config)
    keep_compiled(config.compilation_cache)
    mesh = parallel.make_mesh()
    parallel.check_batch_size(config, mesh)
    params = None
    with parallel.failing_together():  # nobody writes before all have looked
        sources = open_sources(config)
        there = run_dir.find_run(config)
        if there is None:
            config, _, params = start_detector(config, sources.train)
    config = there or config
    if there is None:
        run_dir.write_config(config)
    work_dir = Path(config.work_dir)
    with checkpoint.open_checkpoints(work_dir, config.max_to_keep) as checkpoints:
        run = plan_run(config, sources.train, sources.validation, mesh, checkpoints)
        state, progress = continue_or_start(run, params)
        run_dir.write_config(config)  # once more: changes may have been allowed
        if int(state.step) < run.config.num_steps:
            state = run_steps(run, state, progress)
    if int(state.step) < run.config.num_steps:
        _logger.info(
            "stopped by SIGTERM; saved step %d of %s, the same command continues",
            state.step,
            work_dir,
        )
        return None
    if parallel.is_first():
        with writing(work_dir / "losses.png"):
            plot_metrics(work_dir / "metrics.jsonl", work_dir / "losses.png")
    params = evaluated_params(state)
    return _evaluate(config, run.graphdef, params, sources.test, work_dir)


def evaluate(
    work_dir: Path, split: str | None = None, step: int | str = "latest"
) -> dict[str, Any]:
    """Evaluates a checkpoint of a run directory.

    Args:
      work_dir: the run directory.
      split: of the run's data set; its test split when absent.
      step: of the checkpoint, or "latest" or "best".

    Raises:
      UserError: if the directory has no config or no such checkpoint.
    """
    config = read_config(work_dir / "config.json")
    parallel.start_processes(config.distributed)
    keep_compiled(config.compilation_cache)
    source = open_source(config.data, split or config.data.test_split)
    detector = checkpoint.read_detector(work_dir, step)
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
    parallel.start_processes(config.distributed)
    run_dir.check_processes(config)
    keep_compiled(config.compilation_cache)
    with parallel.failing_together():  # nobody writes before all have looked
        source = open_source(config.data, split or config.data.test_split)
        if not config.model.pretrained:
            raise UserError("model.pretrained is empty, expected a detector's weights")
        config = run_dir.find_run(config) or config
        config, graphdef, params = start_detector(config, source, whole=True)
    run_dir.write_config(config)
    return _evaluate(config, graphdef, params, source, Path(config.work_dir))


def open_sources(config: Config) -> Sources:
    """Opens the splits, which must have the same classes."""
    data = config.data
    splits = {
        name: split
        for name in Sources._fields
        if (split := getattr(data, f"{name}_split"))
    }
    sources = {name: open_source(data, split) for name, split in splits.items()}
    for name, source in sources.items():
        pipeline.check_source(source, data)
        if source.class_names != sources["train"].class_names:
            raise UserError(
                f"data.train_split has the classes {sources['train'].class_names}, "
                f"data.{name}_split {source.class_names}, expected the same"
            )
    return Sources(**{"validation": None} | sources)


def _evaluate(
    config: Config,
    graphdef: nnx.GraphDef,
    params: Params,
    source: Source,
    work_dir: Path,
) -> dict[str, Any]:
    evaluation = runner.evaluate(graphdef, params, source, config, work_dir)
    if parallel.is_first():
        report.print_table(evaluation)
    return evaluation
