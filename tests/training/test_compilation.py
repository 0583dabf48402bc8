"""The training step is compiled once for each canvas, and kept for the next start."""

import dataclasses
import logging
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from frcnn_jax import distributed
from frcnn_jax.data.loader import TrainLoader
from frcnn_jax.data.sources import open_source
from frcnn_jax.distributed import enable_compilation_cache
from frcnn_jax.training.compilation import compile_steps
from tests.helpers import tiny

CANVASES = ((64, 64), (64, 80))
CACHE_OPTIONS = ("compilation_cache_dir", "persistent_cache_min_compile_time_secs")

# Compiles a few programs, and prints how many of them came from a cache.
PROGRAM = """
import sys
import jax, jax.numpy as jnp
from frcnn_jax.distributed import enable_compilation_cache

enable_compilation_cache(sys.argv[1])
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
jax.jit(lambda x: jnp.sort(jnp.sin(x)))(jnp.ones(9))
print(events.count("/jax/compilation_cache/cache_hits"))
"""


@pytest.fixture
def cache_options():
    """JAX's options of the cache, which the test may change."""
    names = [f"jax_{name}" for name in CACHE_OPTIONS]
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def compile_toy(canvases):
    """Compiles a step that only adds up pixels."""

    @jax.jit
    def step(state, batch):
        total = jnp.sum(batch.images, dtype=jnp.int32)
        return state + 1, total

    mesh = distributed.make_mesh()
    state = distributed.replicate(np.int32(0), mesh)
    options = {"batch_size": 2, "max_objects": tiny.DATA.max_objects}
    return state, compile_steps(step, state, mesh, canvases=canvases, **options)


def test_each_canvas_is_compiled_once_and_fits_the_batches(compilations):
    state, steps = compile_toy(CANVASES)
    assert set(steps) == set(CANVASES)
    assert len(compilations) == 2
    compilations.clear()
    for canvas, step in steps.items():
        batch = tiny.first_batch(2, canvas)
        _, total = step(state, distributed.shard_batch(batch, distributed.make_mesh()))
        assert int(total) == batch.images.sum(dtype=int)
    assert not compilations


def test_canvas_that_no_image_takes_is_not_used():
    source = open_source(tiny.DATA, "train")
    data = dataclasses.replace(tiny.DATA, canvases=CANVASES)
    loader = TrainLoader(source, data, batch_size=1, seed=0)
    assert loader.canvases == CANVASES[:1]


def test_seconds_and_memory_are_logged_for_each_canvas(caplog):
    with caplog.at_level(logging.INFO, "frcnn_jax"):
        compile_toy(CANVASES)
    for (height, width), line in zip(CANVASES, caplog.messages, strict=True):
        assert line.startswith(f"canvas {height} x {width}: traced in ")
        assert " s, compiled in " in line
        assert " GiB of memory, " in line


def test_folder_of_the_user_goes_before_ours(cache_options, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "given"))
    enable_compilation_cache(str(tmp_path / "ours"))
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "given")


def test_home_is_found_and_nothing_is_kept_without_a_folder(cache_options, monkeypatch):
    enable_compilation_cache("")
    assert jax.config.jax_compilation_cache_dir is None
    monkeypatch.setenv("HOME", "/home/me")
    enable_compilation_cache("~/compiled")
    assert jax.config.jax_compilation_cache_dir == "/home/me/compiled"


def num_hits_in_another_process(folder, **environment) -> int:
    variables = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment = variables | {"JAX_PLATFORMS": "cpu"} | environment
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    options = {"env": environment, "capture_output": True, "text": True, "check": True}
    return int(subprocess.run(command, **options).stdout)


def test_second_process_finds_all_that_the_first_one_compiled(tmp_path):
    ours, given = tmp_path / "ours", tmp_path / "given"
    num_hits = num_hits_in_another_process(
        ours,
        JAX_COMPILATION_CACHE_DIR=str(given),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",  # the programs are tiny
    )
    assert num_hits == 0
    assert not ours.exists()  # the variable goes before
    kept = list(given.glob("*-cache"))
    assert kept
    assert num_hits_in_another_process(given) == len(kept)
