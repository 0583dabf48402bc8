"""The training step: what changes, what does not, and how often it compiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from frcnn_jax.config import OptimizerConfig
from frcnn_jax.training.optimizer import make_optimizer
from frcnn_jax.training.step import TrainState, init_detector, make_train_step
from tests import tiny


@pytest.fixture(scope="module")
def detector():
    graphdef, params = init_detector(tiny.MODEL, tiny.NUM_CLASSES, 0)
    optimizer = make_optimizer(OptimizerConfig(name="adam"), frozen_blocks=0)

    def new_state():
        copy = jax.tree.map(jnp.copy, params)  # the step takes its argument's memory
        return TrainState(jnp.int32(0), copy, optimizer.init(copy))

    return make_train_step(graphdef, optimizer), new_state


@pytest.fixture
def compilations():
    """Names of what XLA compiles while the test runs."""
    names = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


def test_one_image_can_be_learned_by_heart(detector):
    train_step, new_state = detector
    state, key = new_state(), jax.random.key(0)
    batch = tiny.first_batch()
    losses = []
    for _ in range(60):
        state, metrics = train_step(state, key, batch)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert int(state.step) == 60


def test_same_key_and_step_give_the_same_bits(detector):
    train_step, new_state = detector
    batch, key = tiny.first_batch(), jax.random.key(3)
    first, _ = train_step(new_state(), key, batch)
    second, _ = train_step(new_state(), key, batch)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_randomness_changes_with_the_step(detector):
    train_step, new_state = detector
    batch, key = tiny.first_batch(), jax.random.key(3)
    _, first = train_step(new_state(), key, batch)
    _, later = train_step(new_state()._replace(step=jnp.int32(1)), key, batch)
    assert float(first["loss"]) != float(later["loss"])


def test_one_canvas_compiles_once_and_nothing_comes_back_to_the_host(
    detector, compilations
):
    train_step, new_state = detector
    state, key = new_state(), jax.random.key(0)
    batches = [jax.device_put(tiny.first_batch(2, (64, 64))) for _ in range(3)]
    state, _ = train_step(state, key, batches[0])
    compilations.clear()
    with jax.transfer_guard("disallow"):
        for batch in batches:
            state, _ = train_step(state, key, batch)
    assert not compilations
    train_step(state, key, tiny.first_batch(2, (64, 80)))
    assert len(compilations) == 1
