"""How long the training step takes to compile, and to come from the cache."""

import functools
import tempfile
from collections.abc import Iterator

import jax

from benchmarks import training
from benchmarks.figures import Figure, Task
from benchmarks.sections.scales import Scale, Setting
from benchmarks.trainer import Trainer


def tasks(scale: Scale) -> Iterator[Task]:
    setting = scale.settings()[0]
    measure = functools.partial(_compile, scale, setting)
    yield Task("compilation", str(setting), measure)


def _compile(scale: Scale, setting: Setting) -> Iterator[Figure]:
    batch = training.make_batch(setting.canvas, setting.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        for name in ("compilation", "compilation, second start"):
            jax.clear_caches()
            trainer = Trainer(scale.model, batch, setting.precision)
            yield Figure(
                name,
                str(setting),
                compile_seconds=trainer.compile_seconds,
                note=f"traced in {trainer.trace_seconds:.1f} s",
            )
