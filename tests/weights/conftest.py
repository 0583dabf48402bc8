"""Weight files to read and convert."""

from pathlib import Path

import numpy as np
import pytest

from frcnn_jax import cli
from frcnn_jax.weights.importing import read_weights
from tests.helpers.containers import FULL_WIDTH, write_npz, write_safetensors


@pytest.fixture(scope="session")
def caffe_conv1_1(data_root) -> dict[str, np.ndarray]:
    """Kernels [3, 3, in, 64] by their input channels, BGR as published and RGB."""
    path = data_root / "vgg16/vgg16_caffe_conv1_to_conv3.npz"
    with np.load(path) as layers:
        kernel = layers["conv1_1_W"]
    return {"BGR": kernel, "RGB": np.ascontiguousarray(kernel[:, :, ::-1])}


@pytest.fixture
def read(tmp_path):
    """Reads arrays through `weights.npz`; any container will do for any names."""

    def read(arrays, **options):
        path = write_npz(tmp_path / "weights.npz", arrays)
        return read_weights(str(path), **options)

    return read


@pytest.fixture
def source(tmp_path) -> Path:
    """A file to convert."""
    return write_safetensors(tmp_path / "source.safetensors", FULL_WIDTH)


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "output.safetensors"


@pytest.fixture
def cache(tmp_path_factory, monkeypatch) -> Path:
    """The folder of downloads, not there yet."""
    folder = tmp_path_factory.mktemp("downloads") / "cache"
    monkeypatch.setenv("FRCNN_WEIGHTS_CACHE", str(folder))
    return folder


@pytest.fixture
def mistake(capsys, tmp_path):
    """Runs a command that must end with one line and code 2, and write nothing."""

    def mistake(*arguments) -> str:
        before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        assert stop.value.code == 2
        assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert message.count("\n") == 1
        return message

    return mistake
