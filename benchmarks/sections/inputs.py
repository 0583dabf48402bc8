"""How the training step's time depends on what it is given.

It should not depend on the number of objects, and the data pipeline should keep up.
"""

import functools
import itertools
import time
from collections.abc import Iterator

from benchmarks import training
from benchmarks.figures import Figure, Task
from benchmarks.sections.pictures import open_batches
from benchmarks.sections.scales import Scale
from benchmarks.timing import time_in_turn, times_within
from benchmarks.trainer import Trainer
from frcnn_jax.data.records import Batch

NUM_OBJECTS = (0, 1, 20, 60)


def tasks(scale: Scale) -> Iterator[Task]:
    setting = scale.settings()[0]
    batches = [
        training.make_batch(setting.canvas, setting.batch_size, count)
        for count in NUM_OBJECTS
    ]
    trainer = Trainer(scale.model, batches[0], setting.precision)
    yield Task(
        "training step by objects",
        str(setting),
        functools.partial(_by_objects, scale, trainer, batches, str(setting)),
    )
    for num_workers in scale.num_workers:
        name = f"training step with the data pipeline, {num_workers} workers"
        figure = Figure(name, str(setting))
        yield Task(
            name,
            str(setting),
            functools.partial(_with_pipeline, scale, trainer, num_workers, figure),
        )


def _by_objects(
    scale: Scale, trainer: Trainer, batches: list[Batch], size: str
) -> Iterator[Figure]:
    num_steps = times_within(trainer, scale.seconds_per_run)

    def run(batch: Batch) -> None:
        trainer.batch = batch
        trainer(num_steps)

    runs = [functools.partial(run, trainer.place(batch)) for batch in batches]
    seconds = time_in_turn(runs, 2 * scale.repeats)
    note = f"max / min {max(seconds) / min(seconds):.3f}"
    for count, each in zip(NUM_OBJECTS, seconds, strict=True):
        name = f"training step, {count} objects an image"
        yield Figure(name, size, each / num_steps, note=note)


def _with_pipeline(
    scale: Scale, trainer: Trainer, num_workers: int, figure: Figure
) -> Iterator[Figure]:
    """Times the step with images that are read, decoded, resized and flipped."""
    setting, num_steps = scale.settings()[0], 4 * scale.repeats
    with open_batches(setting.canvas, setting.batch_size, num_workers) as batches:
        trainer.train_on(itertools.islice(batches, num_steps))  # fills the buffers
        began = time.perf_counter()
        trainer.train_on(itertools.islice(batches, num_steps))
        seconds = (time.perf_counter() - began) / num_steps
        began = time.perf_counter()
        for _ in itertools.islice(batches, num_steps):
            pass
        alone = (time.perf_counter() - began) / num_steps
    yield figure._replace(
        seconds=seconds,
        images_per_second=setting.batch_size / seconds,
        note=f"the pipeline alone {setting.batch_size / alone:.3g} images/s",
    )
