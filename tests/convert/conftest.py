"""A source to convert, and where to."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.containers import write_safetensors

FULL_WIDTH = {
    "features.0.weight": np.ones((64, 3, 3, 3), np.float32),
    "features.0.bias": np.zeros(64, np.float32),
}
LAYERS = {
    "conv1_1_W": np.ones((3, 3, 3, 64), np.float32),
    "conv1_1_b": np.zeros(64, np.float32),
}


@pytest.fixture
def source(tmp_path) -> Path:
    return write_safetensors(tmp_path / "source.safetensors", FULL_WIDTH)


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "output.safetensors"
