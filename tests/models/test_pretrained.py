"""Starting from the VGG16 kernels of a file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from frcnn_jax.errors import UserError
from frcnn_jax.models.pretrained import load_into, read_layers
from frcnn_jax.models.vgg16 import BLOCKS, VGG16
from tests import tiny

NAMES = [name for block in BLOCKS for name, _ in block]
SIZES = jnp.array([[40, 44], [48, 36]])


@pytest.fixture
def backbone():
    return tiny.make_backbone(0)


def arrays_of(num_layers: int) -> dict[str, np.ndarray]:
    """Layers as strong as ImageNet's: features far beyond 1."""
    other = tiny.make_backbone(1)
    arrays = {}
    for name in NAMES[:num_layers]:
        layer = getattr(other, name)
        arrays[f"{name}_W"] = 2.0 * np.asarray(layer.kernel[...])
        arrays[f"{name}_b"] = np.full(layer.bias.shape, 0.5, np.float32)
    return arrays


def images():
    x = jax.random.normal(jax.random.key(2), (2, 48, 48, 3))
    inside = jnp.arange(48)[None] < SIZES[:, :1], jnp.arange(48)[None] < SIZES[:, 1:]
    return x * inside[0][:, :, None, None] * inside[1][:, None, :, None]


def write(path, arrays):
    np.savez(path, **arrays)
    return path


def test_complete_file_is_taken_as_it_is(backbone, tmp_path):
    arrays = arrays_of(13)
    layers = read_layers(write(tmp_path / "all.npz", arrays), backbone)
    load_into(backbone, layers, images(), SIZES)
    for name in NAMES:
        layer = getattr(backbone, name)
        np.testing.assert_array_equal(layer.kernel[...], arrays[f"{name}_W"])
        np.testing.assert_array_equal(layer.bias[...], arrays[f"{name}_b"])


def test_partial_file_keeps_features_up_to_one_factor(backbone, tmp_path):
    arrays = arrays_of(7)
    layers = read_layers(write(tmp_path / "part.npz", arrays), backbone)
    assert list(layers) == NAMES[:7]
    load_into(backbone, layers, images(), SIZES)
    ratio = backbone.conv1_1.kernel[...] / arrays["conv1_1_W"]
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-4)
    for name in NAMES[1:7]:
        layer = getattr(backbone, name)
        np.testing.assert_array_equal(layer.kernel[...], arrays[f"{name}_W"])
        np.testing.assert_allclose(layer.bias[...], 0.5 * ratio.mean(), rtol=1e-4)


def test_partial_file_leaves_features_of_unit_scale(backbone, tmp_path):
    layers = read_layers(write(tmp_path / "part.npz", arrays_of(7)), backbone)
    load_into(backbone, layers, images(), SIZES)
    features, _ = backbone(images(), SIZES)
    assert 0.2 < float(features[:, :2, :2].std()) < 3.0
    assert not backbone.conv4_1.bias[...].any()


def test_real_kernels_start_full_width(data_root):
    backbone = nnx.eval_shape(lambda: VGG16(rngs=nnx.Rngs(0)))
    layers = read_layers(data_root / "vgg16/vgg16_caffe_conv1_to_conv3.npz", backbone)
    assert list(layers)[-1] == "conv3_3"
    assert layers["conv3_3"][0].shape == (3, 3, 256, 256)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("conv1_1_W"), "conv1_1_W"),
        (lambda a: a.pop("conv2_1_b"), "conv2_1_b is missing"),
        (lambda a: a.update(conv2_1_W=np.zeros((3, 3, 8, 9), "f")), "(3, 3, 8, 9)"),
        (lambda a: a.update(conv1_1_b=np.zeros(8)), "conv1_1_b is float64"),
    ],
    ids=["no-first", "gap", "shape", "type"],
)
def test_unfit_file_is_refused_with_the_layer(backbone, tmp_path, change, message):
    arrays = arrays_of(7)
    change(arrays)
    with pytest.raises(UserError) as error:
        read_layers(write(tmp_path / "bad.npz", arrays), backbone)
    assert message in str(error.value)
    assert "bad.npz" in str(error.value)


def test_missing_or_damaged_file_is_refused(backbone, tmp_path):
    with pytest.raises(UserError, match=r"none\.npz"):
        read_layers(tmp_path / "none.npz", backbone)
    path = write(tmp_path / "cut.npz", arrays_of(7))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"cut\.npz"):
        read_layers(path, backbone)


def test_pickled_code_is_not_run(backbone, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("",))

    path = tmp_path / "bomb.npz"
    np.savez(path, conv1_1_W=np.array([Bomb()], dtype=object))
    with pytest.raises(UserError, match=r"bomb\.npz"):
        read_layers(path, backbone)
    assert not (tmp_path / "ran").exists()
