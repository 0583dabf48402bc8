"""The training step: what changes, what does not, and how often it compiles."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from frcnn_jax import distributed
from frcnn_jax.config import OptimizerConfig
from frcnn_jax.models.parameters import abstract_detector, random_params
from frcnn_jax.training import step
from frcnn_jax.training.step import init_state, make_train_step
from tests.helpers import tiny

EMA_DECAY = 0.75


def make_detector(model):
    graphdef, _ = abstract_detector(model, tiny.NUM_CLASSES)
    params = random_params(model, tiny.NUM_CLASSES, 0)
    optimizer = tiny.make_optimizer(OptimizerConfig(name="adam"))
    mesh = distributed.make_mesh()

    def new_state(seed=0):
        copy = jax.tree.map(jnp.copy, params)  # the step takes its argument's memory
        state = init_state(copy, optimizer, seed, has_ema=True)
        return distributed.replicate(state, mesh)

    return (
        make_train_step(graphdef, optimizer, mesh, ema_decay=EMA_DECAY),
        new_state,
    )


@pytest.fixture(scope="module")
def detector():
    return make_detector(tiny.MODEL)


@pytest.fixture(scope="module")
def batch():
    return distributed.shard_batch(tiny.first_batch(), distributed.make_mesh())


def assert_equal(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def memorize(detector, batch, num_steps):
    """Trains on one batch; returns the last state and the loss of each step."""
    train_step, new_state = detector
    state, losses = new_state(), []
    for _ in range(num_steps):
        state, metrics = train_step(state, batch)
        losses.append(float(metrics.losses.total.mean()))
    return state, losses


def test_one_image_can_be_memorized(detector, batch):
    state, losses = memorize(detector, batch, 60)
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert int(state.step) == 60
    assert int(state.num_bad_steps) == 0


@pytest.mark.slow
def test_one_image_can_be_memorized_in_bfloat16(batch):
    model = dataclasses.replace(tiny.MODEL, compute_dtype="bfloat16")
    state, losses = memorize(make_detector(model), batch, 40)
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))


def test_same_key_and_step_give_the_same_bits(detector, batch):
    train_step, new_state = detector
    first, _ = train_step(new_state(3), batch)
    second, _ = train_step(new_state(3), batch)
    keys = [state.key for state in (first, second)]
    assert_equal(*map(jax.random.key_data, keys))
    assert_equal(first._replace(key=0), second._replace(key=0))


def test_randomness_changes_with_the_step_and_with_the_key(detector, batch):
    train_step, new_state = detector
    later = new_state()
    later = later._replace(step=later.step + 1)
    totals = {
        float(train_step(state, batch)[1].losses.total.sum())
        for state in (new_state(), later, new_state(1))
    }
    assert len(totals) == 3


def test_moving_mean_follows_the_parameters(detector, batch):
    train_step, new_state = detector
    before = jax.device_get(new_state().params)
    after, _ = train_step(new_state(), batch)
    expected = jax.tree.map(
        lambda old, new: EMA_DECAY * old + (1 - EMA_DECAY) * new, before, after.params
    )
    for a, b in zip(jax.tree.leaves(after.ema), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_step_that_is_not_finite_changes_nothing_and_is_counted(detector, batch):
    train_step, new_state = detector
    # A label beyond the classes: its class score does not exist.
    bad = batch._replace(labels=batch.labels.at[1].set(10**6))
    before = jax.device_get(new_state()._replace(key=0))
    after, metrics = train_step(new_state(), bad)
    assert not metrics.is_finite
    finite = np.isfinite(metrics.losses.roi_classification_loss)
    np.testing.assert_array_equal(finite, [True, False])
    assert np.isfinite(metrics.losses.rpn_classification_loss).all()
    assert_equal(after.params, before.params)
    assert_equal(after.opt_state, before.opt_state)
    assert_equal(after.ema, before.ema)
    assert int(after.step) == 1
    assert int(after.num_bad_steps) == 1
    # And training continues.
    after, metrics = train_step(after, batch)
    assert metrics.is_finite
    assert int(after.num_bad_steps) == 1


@pytest.mark.slow
def test_update_needs_no_copy_of_the_state(batch):
    train_step, new_state = make_detector(
        dataclasses.replace(tiny.MODEL, head_channels=1024)
    )
    state = new_state()
    compiled = train_step.lower(state, batch).compile()
    gradient = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    assert compiled.memory_analysis().temp_size_in_bytes < 1.5 * gradient


def test_gradient_norm_is_that_of_optax(monkeypatch):
    monkeypatch.setattr(step, "PART_SIZE", 1000)
    rng = np.random.default_rng(0)
    shapes = [(3, 3, 64, 32), (977,), (4, 499), ()]
    tree = {str(shape): rng.normal(size=shape).astype(np.float32) for shape in shapes}
    np.testing.assert_allclose(step._norm_by_parts(tree), optax.tree.norm(tree), 1e-6)


def test_padding_images_are_excluded(detector, batch):
    train_step, new_state = detector
    half = batch._replace(image_mask=batch.image_mask.at[1].set(False))
    twice = jax.tree.map(lambda x: x.at[1].set(x[0]), batch)
    filled, metrics = train_step(new_state(), half)
    alone, _ = train_step(new_state(), twice)
    np.testing.assert_array_equal(metrics.image_mask, [True, False])
    for a, b in zip(
        jax.tree.leaves(filled.params), jax.tree.leaves(alone.params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_one_canvas_compiles_once_and_nothing_comes_back_to_the_host(
    detector, compilations
):
    train_step, new_state = detector
    state, mesh = new_state(), distributed.make_mesh()
    batches = [distributed.shard_batch(tiny.first_batch(2), mesh) for _ in range(3)]
    state, _ = train_step(state, batches[0])
    compilations.clear()
    with jax.transfer_guard("disallow"):
        for batch in batches:
            state, _ = train_step(state, batch)
    assert not compilations
    train_step(state, distributed.shard_batch(tiny.first_batch(2, (64, 80)), mesh))
    assert len(compilations) == 1
