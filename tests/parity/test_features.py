"""Features of a photograph, by ImageNet's own kernels up to conv3_3."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from frcnn_jax.models.vgg16 import BLOCKS, VGG16, downsample
from tests.parity import images
from tests.parity.reference_layers import CONVOLUTIONS, extract

NAMES = [name for block in BLOCKS[:3] for name, _ in block]
NUM_LAYERS = 16  # with those that have no parameters
BLUE_GREEN_RED_MEAN = np.float32([103.939, 116.779, 123.68])
TOLERANCE = 1e-4  # relative


@pytest.fixture(scope="module")
def kernels(data_root):
    """ImageNet's kernels [3, 3, in, out] and biases, by name."""
    with np.load(data_root / "vgg16" / "vgg16_caffe_conv1_to_conv3.npz") as file:
        return {name: (file[f"{name}_W"], file[f"{name}_b"]) for name in NAMES}


@pytest.fixture(scope="module")
def image(data_root):
    """[H, W, 3] as the kernels expect it."""
    image = images.cut_image(images.padded_batch(data_root))
    return image[..., ::-1] - BLUE_GREEN_RED_MEAN


@pytest.mark.slow
def test_conv3_3_of_a_photograph_agrees(kernels, image):
    backbone = nnx.eval_shape(lambda: VGG16(rngs=nnx.Rngs(0)))
    for name, (kernel, bias) in kernels.items():
        getattr(backbone, name).kernel.set_value(jnp.asarray(kernel))
        getattr(backbone, name).bias.set_value(jnp.asarray(bias))

    @jax.jit
    def compute(image):
        x, sizes = image[None], jnp.array([image.shape[:2]])
        for index, block in enumerate(BLOCKS[:3]):
            if index > 0:
                x, sizes = downsample(x, sizes)
            for name, _ in block:
                x = nnx.relu(getattr(backbone, name)(x))
        return x[0]

    state = {}
    for layer, (kernel, bias) in zip(CONVOLUTIONS, kernels.values(), strict=False):
        state[f"extractor.{layer}.weight"] = torch.tensor(kernel.transpose(3, 2, 0, 1))
        state[f"extractor.{layer}.bias"] = torch.tensor(bias)
    chw = torch.tensor(np.moveaxis(image, -1, 0)[None])
    expected = extract(state, chw, num_layers=NUM_LAYERS)[0].numpy()
    got = np.moveaxis(np.asarray(compute(image)), -1, 0)
    assert got.shape == expected.shape
    assert np.linalg.norm(got - expected) <= TOLERANCE * np.linalg.norm(expected)
