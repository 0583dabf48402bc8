"""The steps of a run, from its last checkpoint, or its start, to its end."""

import contextlib
import functools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import optax
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import Mesh

from frcnn_jax import parallel
from frcnn_jax.config import Config
from frcnn_jax.data import pipeline
from frcnn_jax.data.records import Batch, Source
from frcnn_jax.errors import UserError
from frcnn_jax.training import checkpoint
from frcnn_jax.training.checkpoint import Progress
from frcnn_jax.training.compilation import compile_steps
from frcnn_jax.training.optimizer import make_optimizer, make_schedule
from frcnn_jax.training.preemption import stop_after, watch_for_preemption
from frcnn_jax.training.run_log import RunLog
from frcnn_jax.training.start import start_detector
from frcnn_jax.training.step import (
    Params,
    TrainState,
    TrainStep,
    abstract_detector,
    evaluated_params,
    make_state,
    make_train_step,
)
from frcnn_jax.training.validation import Validate, make_validate
from frcnn_jax.training.watch import Watch

_logger = logging.getLogger(__name__)


class Run(NamedTuple):
    """What stays the same during a run."""

    config: Config  # counts in steps
    source: Source
    validation_source: Source | None
    steps_per_epoch: int
    mesh: Mesh
    graphdef: nnx.GraphDef
    shapes: Params  # and types of the parameters
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    checkpoints: ocp.CheckpointManager


def plan_run(
    config: Config,
    source: Source,
    validation_source: Source | None,
    mesh: Mesh,
    checkpoints: ocp.CheckpointManager,
) -> Run:
    """Makes everything that follows from config and data."""
    steps_per_epoch = pipeline.steps_per_epoch(source, config.data, config.batch_size)
    config = config.in_steps(steps_per_epoch)
    graphdef, shapes = abstract_detector(config.model, len(source.class_names))
    schedule = make_schedule(config.optimizer, config.batch_size)
    frozen_blocks = config.model.frozen_blocks
    return Run(
        config=config,
        source=source,
        validation_source=validation_source,
        steps_per_epoch=steps_per_epoch,
        mesh=mesh,
        graphdef=graphdef,
        shapes=shapes,
        optimizer=make_optimizer(config.optimizer, schedule, frozen_blocks),
        schedule=schedule,
        checkpoints=checkpoints,
    )


def continue_or_start(run: Run, params: Params | None) -> tuple[TrainState, Progress]:
    """Restores the last checkpoint, or starts.

    Args:
      run: the run.
      params: to start from in a new run directory; None where there may be a
        checkpoint.

    Raises:
      UserError: if there are checkpoints, but none that can be continued, or the
        training data have changed since, which `resume.allow_changes` permits.
    """
    config = run.config
    make = functools.partial(
        make_state,
        optimizer=run.optimizer,
        seed=config.seed,
        has_ema=config.optimizer.ema_decay is not None,
    )
    fingerprint = pipeline.fingerprint(run.source)
    if params is None:
        restored = checkpoint.restore_latest(
            run.checkpoints,
            parallel.replicated_shapes(jax.eval_shape(make, run.shapes), run.mesh),
            config.model.preprocessing,
        )
        if restored is not None:
            state, progress = restored
            _check_data(config, fingerprint, progress.data["fingerprint"])
            _logger.info("continuing after step %d of %s", state.step, config.work_dir)
            return restored
        # It was stopped before its first checkpoint.
        _, _, params = start_detector(config, run.source)
    data = {"next_batch": 0, "fingerprint": fingerprint}
    return parallel.replicate(make(params), run.mesh), Progress(data, log={})


def _check_data(config: Config, now: str, there: str) -> None:
    if now != there and not config.resume.allow_changes:
        raise UserError(
            f"{config.work_dir} holds a run on other training data (fingerprint "
            f"{there}, now {now}); choose another --work-dir, or go on with the "
            "change by --resume.allow-changes"
        )


def run_steps(run: Run, state: TrainState, progress: Progress) -> TrainState:
    """Trains to the last step, or until SIGTERM; the state it returns is saved.

    Raises:
      UserError: after too many steps that were not finite, or if an image cannot be
        read or a checkpoint not be written.
    """
    start_step = int(state.step)
    stop_after(start_step)
    train_steps = _compile(run, state)
    validate = _make_validate(run)
    watch = _make_watch(run, state, progress)
    batches = _read_batches(run, progress)
    with _open_log(run, start_step) as log, watch_for_preemption() as preempted:
        for step in range(start_step + 1, run.config.num_steps + 1):
            batch = watch.wait_for(batches)
            train_step = train_steps[batch.images.shape[1:3]]
            state, metrics = train_step(state, parallel.divide(batch, run.mesh))
            watch.add(step, metrics)
            is_stopped = preempted(step)
            is_last = step == run.config.num_steps
            row, validation = {}, {}
            if is_last or step % run.config.log_every == 0:
                row = _close_row(run, watch, step)
            is_due = is_last or step % run.config.checkpoint_every == 0
            if is_due and validate:
                with watch.aside():
                    validation = validate(evaluated_params(state))
            if is_due or is_stopped:  # before telling: it reads the open window
                data = progress.data | {"next_batch": step}
                progress = Progress(data, log=watch.state())
            _tell(log, watch, step, row | validation)
            if is_due or is_stopped:
                checkpoint.save(
                    run.checkpoints,
                    state,
                    run.config.model.preprocessing,
                    progress,
                    validation,
                )
            if is_stopped:
                break
        checkpoint.wait(run.checkpoints)
    return state


def _make_validate(run: Run) -> Validate | None:
    if run.validation_source is None:
        return None
    return make_validate(run.graphdef, run.validation_source, run.config, run.mesh)


def _make_watch(run: Run, state: TrainState, progress: Progress) -> Watch:
    watch = Watch(
        [annotation.image_id for annotation in run.source.annotations],
        run.steps_per_epoch,
        run.config.max_bad_steps,
    )
    if progress.log:
        watch.restore(progress.log, int(state.num_bad_steps))
    return watch


def _read_batches(run: Run, progress: Progress) -> Iterator[Batch]:
    return pipeline.train_batches(
        run.source,
        run.config.data,
        batch_size=run.config.batch_size,
        seed=run.config.seed,
        start_step=progress.data["next_batch"],
        **parallel.shard(),
    )


def _close_row(run: Run, watch: Watch, step: int) -> dict[str, float]:
    row = watch.close(step)
    # A left-out update does not move the schedule on.
    num_updates = step - row["bad_steps"]
    row["learning_rate"] = float(run.schedule(max(num_updates - 1, 0)))
    return row


def _compile(run: Run, state: TrainState) -> dict[tuple[int, int], TrainStep]:
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
        canvases=pipeline.used_canvases(run.source, config.data),
        batch_size=config.batch_size,
        max_objects=config.data.max_objects,
    )


def _open_log(run: Run, start_step: int) -> contextlib.AbstractContextManager:
    """Opens the log in process 0; the others have none."""
    if not parallel.is_first():
        return contextlib.nullcontext()
    config = run.config
    return RunLog(
        Path(config.work_dir), start_step, config.num_steps, config.log_hardest
    )


def _tell(log: RunLog | None, watch: Watch, step: int, row: dict[str, float]) -> None:
    """Writes what is to be told after a step; stops the run if that is too much."""
    if log is not None:
        log.write_bad(watch.bad_steps)
        log.write_hardest(watch.hardest)
        if row:
            log.write(step, row)
    watch.bad_steps.clear()
    watch.hardest.clear()
    watch.check()
