"""The optimizer's groups and schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from frcnn_jax.config import Config, OptimizerConfig
from frcnn_jax.training.optimizer import make_schedule
from tests.helpers import tiny

PARAMS = {
    "backbone": {
        "conv1_2": {"kernel": jnp.array([2.0]), "bias": jnp.array([3.0])},
        "conv3_1": {"kernel": jnp.array([2.0]), "bias": jnp.array([3.0])},
    },
    "head": {"score": {"kernel": jnp.array([2.0]), "bias": jnp.array([3.0])}},
}
ONES = jax.tree.map(jnp.ones_like, PARAMS)


def first_update(config, frozen_blocks=2):
    optimizer = tiny.make_optimizer(config, frozen_blocks)
    return optimizer.update(ONES, optimizer.init(PARAMS), PARAMS)[0]


def test_biases_learn_twice_as_fast_without_decay():
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.5)
    score = first_update(config)["head"]["score"]
    np.testing.assert_allclose(score["kernel"], -0.1 * (1.0 + 0.5 * 2.0), rtol=1e-6)
    np.testing.assert_allclose(score["bias"], -0.2, rtol=1e-6)


def test_frozen_blocks_do_not_move():
    updates = first_update(OptimizerConfig())["backbone"]
    assert not updates["conv1_2"]["kernel"].any()
    assert not updates["conv1_2"]["bias"].any()
    assert updates["conv3_1"]["kernel"].all()


def test_momentum_accumulates():
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.0, momentum=0.9)
    optimizer = tiny.make_optimizer(config)
    state = optimizer.init(PARAMS)
    _, state = optimizer.update(ONES, state, PARAMS)
    updates, _ = optimizer.update(ONES, state, PARAMS)
    np.testing.assert_allclose(updates["head"]["score"]["kernel"], -0.19, rtol=1e-6)


def test_gradient_is_clipped_to_the_norm():
    config = OptimizerConfig(learning_rate=1.0, weight_decay=0.0, clip_norm=0.6)
    updates = first_update(config, frozen_blocks=0)
    kernels = jnp.concatenate(
        [updates["backbone"]["conv1_2"]["kernel"], updates["head"]["score"]["kernel"]]
    )
    np.testing.assert_allclose(kernels, -0.6 / np.sqrt(6.0), rtol=1e-5)


def test_schedule_warms_up_and_drops():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=4, boundaries=(10, 20))
    schedule = make_schedule(config, 1)
    rates = [float(schedule(step)) for step in (0, 1, 3, 9, 10, 19, 20)]
    assert rates == pytest.approx([0.25, 0.5, 1.0, 1.0, 0.1, 0.1, 0.01])


def test_adam_takes_the_same_groups():
    updates = first_update(OptimizerConfig(name="adam", learning_rate=0.1))
    assert not updates["backbone"]["conv1_2"]["kernel"].any()
    np.testing.assert_allclose(updates["head"]["score"]["bias"], -0.2, rtol=1e-3)


def test_warmup_of_one_step_is_none():
    schedule = make_schedule(OptimizerConfig(learning_rate=1.0, warmup_steps=1), 1)
    assert [float(schedule(step)) for step in (0, 1)] == [1.0, 1.0]


def test_rate_scales_with_the_batch_only_on_request():
    rates = {
        size: float(make_schedule(OptimizerConfig(rate_batch_size=size), 8)(0))
        for size in (None, 1, 16)
    }
    assert rates == pytest.approx({None: 1e-3, 1: 8e-3, 16: 5e-4})


def test_boundaries_in_epochs_become_steps():
    optimizer = OptimizerConfig(boundaries=(10, 12.5), boundary_unit="epochs")
    config = Config(num_epochs=14, optimizer=optimizer).in_steps(205)
    assert config.num_steps == 14 * 205
    assert config.num_epochs is None
    assert config.optimizer.boundaries == (2050, 2562)
    assert config.in_steps(7) == config
