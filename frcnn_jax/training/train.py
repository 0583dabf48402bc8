"""A training run, from its config to a trained and evaluated detector.

`train` is the whole story. A new run starts from initial parameters, an old one from
its last checkpoint; from there on they take the same steps.
"""

import contextlib
import functools
import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx
from jax.sharding import Mesh
from PIL import Image

from frcnn_jax import distributed, run_dir
from frcnn_jax.config import Config, DetectorSpec
from frcnn_jax.config.detector_spec import make_spec
from frcnn_jax.data.loader import TrainLoader, choose_canvases
from frcnn_jax.data.records import Source, fingerprint, has_objects
from frcnn_jax.data.sources import open_source, warn_of_shared_images
from frcnn_jax.detector import Detector
from frcnn_jax.errors import UserError
from frcnn_jax.evaluation.evaluate import (
    Validate,
    Validation,
    evaluate,
    make_validate,
)
from frcnn_jax.files import os_errors_as_user_errors
from frcnn_jax.models.parameters import Params, abstract_detector
from frcnn_jax.report.page import write_report
from frcnn_jax.training import checkpoint
from frcnn_jax.training.checkpoint import Progress
from frcnn_jax.training.compilation import Canvas, compile_steps
from frcnn_jax.training.init import init_params
from frcnn_jax.training.log import RunLog
from frcnn_jax.training.metrics import MetricsAccumulator
from frcnn_jax.training.optimizer import make_optimizer, make_schedule
from frcnn_jax.training.step import (
    TrainState,
    evaluated_params,
    init_state,
    make_train_step,
)
from frcnn_jax.visualization.curves import plot_metrics
from frcnn_jax.weights.checkpoints import list_steps

_logger = logging.getLogger(__name__)


class Splits(NamedTuple):
    """The splits of a data set, which have the same classes."""

    train: Source
    validation: Source | None
    test: Source


class Run(NamedTuple):
    """What stays the same during a run."""

    config: Config  # counts in steps
    splits: Splits
    loader: TrainLoader
    mesh: Mesh
    spec: DetectorSpec
    graphdef: nnx.GraphDef
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule


def train(config: Config) -> dict[str, Any] | None:
    """Trains and evaluates; continues after the run directory's last checkpoint.

    Args:
      config: of the run.

    Returns:
      What `evaluation.json` holds; None if SIGTERM ended the run, after a checkpoint.

    Raises:
      UserError: if data, weights or run directory do not fit the config, or the run
        cannot go on.
    """
    distributed.start_processes(config.distributed)
    run_dir.check_processes(config)
    distributed.enable_compilation_cache(config.compilation_cache)
    mesh = distributed.make_mesh()
    distributed.check_batch_size(config, mesh)

    # No process may write before every process knows that it can start.
    with distributed.raise_on_all_processes():
        config = run_dir.match_stored_config(config)
        splits = open_splits(config)
        params = None
        if not checkpoint.exists(Path(config.work_dir)):
            config, params = init_params(config, splits.train)
    _check_same_start(config, splits)
    run = plan_run(config, splits, mesh)
    with run_dir.locked(Path(config.work_dir)):
        state, progress = restore(run) if params is None else start(run, params)
        del params  # the first step takes over their memory
        run_dir.write_config(config)
        if int(state.step) < run.config.num_steps:
            state = run_steps(run, state, progress)
        return finish(run, state)


def open_splits(config: Config) -> Splits:
    """Opens the splits, and checks that their images fit into batches.

    Raises:
      UserError: if a split is missing or broken, their classes differ, or there is
        nothing to learn.
    """
    data = config.data
    names = {name: getattr(data, f"{name}_split") for name in Splits._fields}
    sources = {n: open_source(data, split) for n, split in names.items() if split}
    class_names = sources["train"].class_names
    if not has_objects(sources["train"]):
        raise UserError(
            f"data.train_split is {data.train_split!r}, which has no objects to learn "
            "from (difficult ones do not count)"
        )
    for name, source in sources.items():
        is_augmented = name == "train"
        choose_canvases(source, data if is_augmented else data.without_augmentation())
        if source.class_names != class_names:
            raise UserError(
                f"data.train_split has the classes {class_names}, "
                f"data.{name}_split {source.class_names}, expected the same"
            )
    warn_of_shared_images(data, sources)
    return Splits(sources["train"], sources.get("validation"), sources["test"])


def _check_same_start(config: Config, splits: Splits) -> None:
    """Checks that all processes start from the same data and the same checkpoints."""
    if jax.process_count() == 1:
        return
    data = " ".join(fingerprint(split) for split in splits if split is not None)
    distributed.check_same(data, "other images or annotations")
    steps = list_steps(Path(config.work_dir) / "checkpoints")
    distributed.check_same(str(steps), f"other checkpoints in {config.work_dir}")


def plan_run(config: Config, splits: Splits, mesh: Mesh) -> Run:
    """Builds everything that follows from config and data.

    Args:
      config: of the run; its preprocessing is known.
      splits: of the data set.
      mesh: the devices.
    """
    loader = TrainLoader(
        splits.train,
        config.data,
        batch_size=config.batch_size,
        seed=config.seed,
        **distributed.process_shard(),
    )
    config = config.in_steps(loader.steps_per_epoch)
    schedule = make_schedule(config.optimizer, config.batch_size)
    spec = make_spec(config.model, config.data, splits.train.class_names)
    return Run(
        config=config,
        splits=splits,
        loader=loader,
        mesh=mesh,
        spec=spec,
        graphdef=abstract_detector(config.model, len(spec.class_names))[0],
        optimizer=make_optimizer(
            config.optimizer, schedule, config.model.frozen_blocks
        ),
        schedule=schedule,
    )


def start(run: Run, params: Params) -> tuple[TrainState, Progress]:
    """Returns the state and progress of a new run.

    Args:
      run: the run.
      params: to start from.

    Raises:
      UserError: if another process has started a run there in the meantime.
    """
    if checkpoint.exists(Path(run.config.work_dir)):
        raise UserError(
            f"{run.config.work_dir}: another process has just started a run there"
        )
    data = {"fingerprint": fingerprint(run.splits.train)}
    state = distributed.replicate(_init_state(run, params), run.mesh)
    return state, Progress(data, log={})


def restore(run: Run) -> tuple[TrainState, Progress]:
    """Restores state and progress from the last checkpoint.

    Raises:
      UserError: if no checkpoint can be continued, or the training data have changed
        since, which `resume.allow_changes` permits.
    """
    config = run.config
    _, shapes = abstract_detector(config.model, len(run.spec.class_names))
    template = jax.eval_shape(functools.partial(_init_state, run), shapes)
    with checkpoint.open_checkpoints(Path(config.work_dir)) as checkpoints:
        state, progress = checkpoint.restore_latest(
            checkpoints, distributed.replicated_shapes(template, run.mesh), run.spec
        )
    if state.step > config.num_steps:
        raise UserError(
            f"num_steps is {config.num_steps}, but the run of {config.work_dir} has "
            f"made {state.step} steps already"
        )
    saved, current = progress.data["fingerprint"], fingerprint(run.splits.train)
    if current != saved and not config.resume.allow_changes:
        raise UserError(
            f"{config.work_dir} holds a run on other training data (fingerprint "
            f"{saved}, now {current}); choose another --work-dir, or accept the "
            "change with --resume.allow-changes"
        )
    _logger.info("continuing after step %d of %s", state.step, config.work_dir)
    return state, progress._replace(data=progress.data | {"fingerprint": current})


def run_steps(run: Run, state: TrainState, progress: Progress) -> TrainState:
    """Trains to the last step, or until SIGTERM; the state it returns is saved.

    Args:
      run: the run.
      state: before the first step.
      progress: before the first step.

    Raises:
      UserError: after too many steps that were not finite, or if an image cannot be
        read or a checkpoint cannot be written.
    """
    config, first_step = run.config, int(state.step) + 1
    distributed.prime_preemption_sync(first_step - 1)
    train_steps = _compile(run, state)
    validate = _make_validate(run)
    accumulator = _make_accumulator(run, state, progress)
    batches = run.loader.batches(first_step - 1)
    with (
        _open_log(config, first_step) as log,
        checkpoint.open_checkpoints(
            Path(config.work_dir), config.max_to_keep
        ) as checkpoints,
        distributed.watch_for_preemption() as preempted,
    ):
        for step in range(first_step, config.num_steps + 1):
            batch = accumulator.next_batch(batches)
            state, metrics = train_steps[batch.canvas](
                state, distributed.shard_batch(batch, run.mesh)
            )
            accumulator.add(step, metrics)

            is_stopped = preempted(step)
            is_checkpoint_due = _is_due(step, config.checkpoint_every, config)
            row, (figures, pictures) = {}, Validation({}, {})
            if _is_due(step, config.log_every, config):
                row = accumulator.flush(step)
                # A skipped update does not advance the schedule.
                num_updates = step - row["bad_steps"]
                row["learning_rate"] = float(run.schedule(max(num_updates - 1, 0)))
            if is_checkpoint_due and validate is not None:
                with accumulator.exclude_from_timing():
                    figures, pictures = validate(evaluated_params(state))
            if is_checkpoint_due or is_stopped:  # before the logs: it fetches metrics
                progress = progress._replace(log=accumulator.state())
            # Rows first: those after the last checkpoint are dropped on resume.
            _write_logs(log, accumulator, step, row | figures, pictures)
            if is_checkpoint_due or is_stopped:
                checkpoint.save(checkpoints, state, run.spec, progress, figures)
            if is_stopped:
                break
        checkpoint.wait(checkpoints)
    return state


def finish(run: Run, state: TrainState) -> dict[str, Any] | None:
    """Evaluates the test split, plots and reports, unless SIGTERM ended the run.

    Args:
      run: the run.
      state: after its last step.
    """
    step, work_dir = int(state.step), Path(run.config.work_dir)
    if step < run.config.num_steps:
        _logger.info(
            "stopped by SIGTERM; saved step %d of %s, the same command continues",
            step,
            work_dir,
        )
        return None
    detector = Detector(run.spec, evaluated_params(state), str(work_dir))
    evaluation = evaluate(detector, run.splits.test, run.config, work_dir, step=step)
    if distributed.is_main_process():
        _plot(work_dir / "metrics.jsonl", work_dir / "losses.png")
        write_report([work_dir])
    return evaluation


def _plot(metrics: Path, output: Path) -> None:
    """Plots the log; warns if there is none, as the results do not depend on it."""
    try:
        with os_errors_as_user_errors(output):
            plot_metrics(metrics, output)
    except UserError as error:
        _logger.warning("no %s: %s", output.name, error)


def _is_due(step: int, every: int, config: Config) -> bool:
    return step % every == 0 or step == config.num_steps


def _init_state(run: Run, params: Params) -> TrainState:
    has_ema = run.config.optimizer.ema_decay is not None
    return init_state(params, run.optimizer, run.config.seed, has_ema)


def _compile(run: Run, state: TrainState) -> dict[Canvas, jax.stages.Compiled]:
    config = run.config
    train_step = make_train_step(
        run.graphdef,
        run.optimizer,
        run.mesh,
        micro_batches=config.micro_batches,
        ema_decay=config.optimizer.ema_decay,
    )
    return compile_steps(
        train_step,
        state,
        run.mesh,
        canvases=run.loader.canvases,
        batch_size=config.batch_size,
        max_objects=config.data.max_objects,
    )


def _make_validate(run: Run) -> Validate | None:
    if run.splits.validation is None:
        return None
    return make_validate(run.graphdef, run.splits.validation, run.config, run.mesh)


def _make_accumulator(
    run: Run, state: TrainState, progress: Progress
) -> MetricsAccumulator:
    accumulator = MetricsAccumulator(
        [annotation.image_id for annotation in run.splits.train.annotations],
        run.loader.steps_per_epoch,
        run.config.max_bad_steps,
    )
    if progress.log:
        accumulator.restore(progress.log, int(state.num_bad_steps))
    return accumulator


def _open_log(
    config: Config, first_step: int
) -> contextlib.AbstractContextManager[RunLog | None]:
    """Opens the log in process 0; the others have none."""
    if not distributed.is_main_process():
        return contextlib.nullcontext()
    return RunLog(
        Path(config.work_dir), first_step - 1, config.num_steps, config.log_hardest
    )


def _write_logs(
    log: RunLog | None,
    accumulator: MetricsAccumulator,
    step: int,
    row: dict[str, float],
    pictures: dict[str, Image.Image],
) -> None:
    """Logs what happened up to a step; ends the run if too many updates failed."""
    if log is not None:
        log.write_bad(accumulator.bad_steps)
        log.write_hardest(accumulator.hardest)
        if row:
            log.write(step, row, pictures)
    accumulator.bad_steps.clear()
    accumulator.hardest.clear()
    accumulator.raise_if_too_many_skipped()
