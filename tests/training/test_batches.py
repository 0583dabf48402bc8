"""A batch is the mean of its images, however it is split: in time or over devices."""

import functools
import os
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from frcnn_jax import distributed
from frcnn_jax.config import OptimizerConfig
from frcnn_jax.models.parameters import abstract_detector, flatten, random_params
from frcnn_jax.training.step import init_state, make_train_step
from tests.helpers import tiny

pytestmark = pytest.mark.slow

BATCH_SIZE = 8

# With these an update is the gradient itself.
PLAIN = OptimizerConfig(
    learning_rate=1.0, momentum=0.0, weight_decay=0.0, bias_rate_factor=1.0
)


@functools.cache
def initial_params():
    return random_params(tiny.MODEL, tiny.NUM_CLASSES, 0)


@functools.cache
def train_step(micro_batches: int):
    graphdef, _ = abstract_detector(tiny.MODEL, tiny.NUM_CLASSES)
    return make_train_step(
        graphdef,
        tiny.make_optimizer(PLAIN),
        distributed.make_mesh(),
        micro_batches=micro_batches,
    )


def losses_and_gradient(batch, micro_batches=1):
    """Losses of every image, and the gradient by parameter."""
    params = jax.tree.map(jnp.copy, initial_params())
    state = init_state(params, tiny.make_optimizer(PLAIN), 0, has_ema=False)
    mesh = distributed.make_mesh()
    batch = distributed.shard_batch(batch, mesh)
    after, metrics = train_step(micro_batches)(
        distributed.replicate(state, mesh), batch
    )
    gradient = jax.tree.map(lambda old, new: old - new, initial_params(), after.params)
    losses = [np.asarray(values) for values in metrics.losses]
    return losses, flatten(gradient)


def assert_alike(losses, gradient, expected_losses, expected_gradient):
    for values, expected in zip(losses, expected_losses, strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    for name, expected in expected_gradient.items():
        scale = np.abs(expected).max()
        difference = np.abs(gradient[name] - expected).max()
        # Parameters of order 1 minus the gradient: some digits of it are lost.
        assert difference <= 1e-4 * scale + 1e-6, name


@pytest.fixture(scope="module")
def batch():
    return tiny.first_batch(BATCH_SIZE)


@pytest.fixture(scope="module")
def whole(batch):
    return losses_and_gradient(batch)


def test_batch_is_the_mean_of_its_images(batch, whole):
    single = [losses_and_gradient(tiny.take(batch, i)) for i in range(BATCH_SIZE)]
    losses = [
        np.concatenate(values) for values in zip(*(s[0] for s in single), strict=True)
    ]
    gradient = {
        name: np.mean([s[1][name] for s in single], axis=0) for name in whole[1]
    }
    assert_alike(*whole, losses, gradient)


def test_micro_batches_make_the_same_update(batch, whole):
    assert_alike(*losses_and_gradient(batch, micro_batches=4), *whole)


def test_filler_weighs_nothing_in_micro_batches_either(batch):
    mask = np.arange(BATCH_SIZE) < 5
    masked = batch._replace(image_mask=mask)
    runs = [losses_and_gradient(masked, micro_batches=n) for n in (4, 1)]
    (losses, gradient), (expected_losses, expected) = (
        ([values[mask] for values in losses], gradient) for losses, gradient in runs
    )
    assert_alike(losses, gradient, expected_losses, expected)


def test_eight_devices_make_the_same_update_as_one(whole, tmp_path):
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    output = tmp_path / "result.pickle"
    subprocess.run(
        [sys.executable, "-m", "tests.training.test_batches", str(output)],
        env=environment,
        check=True,
    )
    num_devices, result = pickle.loads(output.read_bytes())
    assert num_devices == 8
    assert_alike(*result, *whole)


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    result = losses_and_gradient(tiny.first_batch(BATCH_SIZE))
    with open(sys.argv[1], "wb") as file:
        pickle.dump((jax.device_count(), result), file)
