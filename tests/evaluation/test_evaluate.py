"""Running a detector over a data set whose images have several canvases."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from frcnn_jax import distributed, ops
from frcnn_jax.config import Config, DataConfig
from frcnn_jax.evaluation.evaluate import detect_all
from tests.helpers.sized import SizedSource

SIZES = [(16, 32), (32, 16), (16, 32), (32, 16), (16, 16), (32, 16), (16, 32)]
CONFIG = Config(
    batch_size=2,
    data=DataConfig(
        shorter_side=16,
        longer_side=32,
        canvases=((32, 16), (16, 16), (16, 32)),
        max_objects=1,
    ),
)


def detect_brightness(params, batch):
    """Finds one object in each image, with the brightest pixel as its score."""
    scores = jnp.asarray(batch.images).max(axis=(1, 2, 3))[:, None]
    boxes = jnp.concatenate([batch.image_sizes, batch.image_sizes], 1)[:, None]
    mask = jnp.ones(scores.shape, bool)
    found = ops.Detections(boxes, scores, jnp.zeros(scores.shape, int), mask)
    return found, batch.indices, batch.image_mask


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_detections_come_in_the_order_of_the_source(batch_size):
    source = SizedSource(SIZES)
    config = dataclasses.replace(CONFIG, batch_size=batch_size)
    found = detect_all(detect_brightness, {}, source, config, distributed.make_mesh())
    # The images of this source are as bright as their index + 1.
    assert [int(image.scores[0]) for image in found] == [1, 2, 3, 4, 5, 6, 7]
    for image, size in zip(found, SIZES, strict=True):
        np.testing.assert_array_equal(image.boxes, [[*size, *size]])
