"""Containers of weights, written on the spot, and how their refusal reads."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from frcnn_jax.errors import UserError
from frcnn_jax.weights.files import read_file

ARRAYS = {
    "conv1_1_W": np.arange(54, dtype=np.float32).reshape(3, 3, 3, 2),
    "conv1_1_b": np.array([0.5, -0.0], np.float32),
}


def write_npz(path: Path, arrays=ARRAYS) -> Path:
    with path.open("wb") as file:  # `savez` would append .npz to another suffix
        np.savez(file, **arrays)
    return path


def write_safetensors(path: Path, arrays=ARRAYS) -> Path:
    safetensors.numpy.save_file(arrays, path, {"format": "pt"})
    return path


def write_hdf5(path: Path, arrays=ARRAYS) -> Path:
    h5py = pytest.importorskip("h5py", reason="needs the extra keras")
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def refusal(source, read=read_file) -> str:
    """The one line with which a source is refused."""
    with pytest.raises(UserError) as error:
        read(str(source))
    message = str(error.value)
    assert message.startswith(f"{source}: ")
    assert "\n" not in message
    return message


def assert_same(arrays, expected) -> None:
    assert set(arrays) == set(expected)
    for name, array in arrays.items():
        assert (array.dtype, array.shape) == (np.float32, expected[name].shape)
        assert array.tobytes() == expected[name].tobytes()


# Full-width VGG16, of one layer only.
FULL_WIDTH = {
    "features.0.weight": np.ones((64, 3, 3, 3), np.float32),
    "features.0.bias": np.zeros(64, np.float32),
}
LAYERS = {
    "conv1_1_W": np.ones((3, 3, 3, 64), np.float32),
    "conv1_1_b": np.zeros(64, np.float32),
}
