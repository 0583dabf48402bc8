"""The way back: the same arrays under their names, or no file at all."""

import dataclasses
import sys

import numpy as np
import pytest
import safetensors.numpy

from frcnn_jax.config import PREPROCESSINGS, LossConfig
from frcnn_jax.errors import UserError
from frcnn_jax.weights import exporting
from frcnn_jax.weights.exporting import FORMATS, export_weights, save_weights
from frcnn_jax.weights.files import read_file
from frcnn_jax.weights.importing import read_weights
from tests.helpers import foreign
from tests.helpers.containers import assert_same

# What a project's file becomes in another project's names.
PAIRS = {
    "torchvision": (foreign.torchvision(), "torchvision", foreign.torchvision()),
    "pytorch-vgg": (foreign.pytorch_vgg(), "torchvision", foreign.torchvision()),
    "timm": (foreign.timm(), "torchvision", foreign.torchvision()),
    "npz": (foreign.npz(), "torchvision", foreign.torchvision()),
    "keras": (foreign.keras(), "torchvision", foreign.torchvision()),
    "chenyuntc": (foreign.chenyuntc(), "chenyuntc", foreign.chenyuntc()),
    "chainercv": (foreign.chainercv(), "chenyuntc", foreign.chenyuntc()),
}
SCALES = {"anchor_scales": (1.0, 2.0)}


@pytest.fixture(params=[".safetensors", ".pth"])
def output(request, tmp_path):
    if request.param == ".pth":
        pytest.importorskip("torch", reason="needs the extra parity")
    return tmp_path / f"exported{request.param}"


def assert_nothing_written(folder) -> None:
    assert sorted(p.name for p in folder.iterdir()) == ["weights.npz"]


@pytest.mark.parametrize("name", PAIRS)
def test_export_gives_the_bits_of_the_projects_file(name, read, output):
    arrays, layout, expected = PAIRS[name]
    weights = read(arrays, preprocessing="torchvision", **SCALES)
    export_weights(weights, output, FORMATS[layout])
    assert len(expected) == {"torchvision": 32, "chenyuntc": 40}[layout]
    assert_same(read_file(str(output)).arrays, expected)


@pytest.mark.parametrize("name", ["torchvision", "chenyuntc"])
def test_import_of_an_export_gives_the_same_weights(name, read, output):
    arrays, layout, _ = PAIRS[name]
    weights = read(arrays, **SCALES)
    export_weights(weights, output, FORMATS[layout])
    again = read_weights(str(output), **SCALES)
    assert_same(again.arrays, weights.arrays)
    assert again.layout == weights.layout
    assert again.model_fields == weights.model_fields


@pytest.mark.parametrize("preprocessing", ["torchvision", "chenyuntc-caffe"])
def test_detector_keeps_its_preprocessing(preprocessing, read, output):
    weights = read(foreign.chenyuntc(), preprocessing=preprocessing, **SCALES)
    export_weights(weights, output, FORMATS["chenyuntc"])
    again = read_weights(str(output), **SCALES)
    assert again.preprocessing == PREPROCESSINGS[preprocessing]


def test_pytorch_loads_the_files_as_those_projects_do(read, tmp_path):
    torch = pytest.importorskip("torch", reason="needs the extra parity")
    path = tmp_path / "vgg16.pth"
    export_weights(read(foreign.torchvision()), path, FORMATS["torchvision"])
    state = torch.load(path, weights_only=True)
    torch.nn.Conv2d(3, 8, 3).load_state_dict(
        {kind: state[f"features.0.{kind}"] for kind in ("weight", "bias")}
    )
    path = tmp_path / "detector.pth"
    export_weights(read(foreign.chenyuntc(), **SCALES), path, FORMATS["chenyuntc"])
    assert set(torch.load(path, weights_only=True)) == {"model", "config"}


def test_trained_detector_has_no_imagenet_classes(read, tmp_path):
    path = tmp_path / "vgg16.safetensors"
    export_weights(read(foreign.chenyuntc(), **SCALES), path, FORMATS["torchvision"])
    names = set(foreign.torchvision()) - {"classifier.6.weight", "classifier.6.bias"}
    assert set(read_file(str(path)).arrays) == names


@pytest.mark.parametrize(
    ("arrays", "layout", "missing"),
    [
        (foreign.torchvision(), "chenyuntc", "rpn.conv.kernel"),
        (
            {name: foreign.npz()[name] for name in ("conv1_1_W", "conv1_1_b")},
            "torchvision",
            "backbone.conv1_2.kernel",
        ),
    ],
)
def test_missing_layer_is_refused_by_name(arrays, layout, missing, read, tmp_path):
    weights = read(arrays)
    with pytest.raises(UserError, match=f"{missing} is missing"):
        export_weights(weights, tmp_path / "out.safetensors", FORMATS[layout])
    assert_nothing_written(tmp_path)


def with_model(weights, **fields):
    model = dataclasses.replace(weights.spec.model, **fields)
    spec = dataclasses.replace(weights.spec, model=model)
    return dataclasses.replace(weights, spec=spec)


def with_caffe_colors(weights):
    return dataclasses.replace(weights, preprocessing=PREPROCESSINGS["caffe"])


def with_plain_deltas(weights):
    return with_model(weights, losses=LossConfig(delta_std=(1.0, 1.0, 1.0, 1.0)))


def with_five_scales(weights):
    return with_model(weights, anchor_scales=(1.0,) * 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_caffe_colors, "no such preprocessing"),
        (with_plain_deltas, "deltas are divided by"),
        (with_five_scales, "cannot be rearranged"),
    ],
)
def test_detector_that_project_cannot_use_is_refused(change, message, read, tmp_path):
    weights = read(foreign.chenyuntc(), **SCALES)
    weights = change(weights)
    with pytest.raises(UserError, match=message):
        export_weights(weights, tmp_path / "out.safetensors", FORMATS["chenyuntc"])
    assert_nothing_written(tmp_path)


def test_missing_pytorch_is_named_and_nothing_written(read, tmp_path, monkeypatch):
    weights = read(foreign.torchvision())
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"pip install 'frcnn_jax\[torch\]'"):
        export_weights(weights, tmp_path / "out.pth", FORMATS["torchvision"])
    assert_nothing_written(tmp_path)


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_full_disk_or_interrupt_leaves_no_file(error, read, tmp_path, monkeypatch):
    def write_some(arrays, path, metadata):
        path.write_bytes(b"half a fi")
        raise error

    weights = read(foreign.torchvision())
    monkeypatch.setattr(safetensors.numpy, "save_file", write_some)
    expected = UserError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match=r"^$|cannot write .*out\.safetensors: No"):
        save_weights(weights, tmp_path / "out.safetensors")
    assert_nothing_written(tmp_path)


def test_librarys_longer_message_becomes_one_line(read, tmp_path, monkeypatch):
    def fail(part):
        raise RuntimeError("disk full\nframe #0: ...")

    with pytest.raises(UserError) as error:
        exporting._write(tmp_path / "out.pth", fail)
    assert str(error.value).endswith("out.pth: disk full")


def test_folder_in_the_way_is_one_line(read, tmp_path):
    (tmp_path / "out.safetensors.tmp").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*out\.safetensors: "):
        save_weights(read(foreign.torchvision()), tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_values_that_are_no_multiples_survive_the_way_there_and_back(read, output):
    arrays = {
        name: np.random.default_rng(0).normal(size=array.shape).astype(np.float32)
        for name, array in foreign.chenyuntc().items()
    }
    weights = read(arrays, **SCALES)
    export_weights(weights, output, FORMATS["chenyuntc"])
    assert_same(read_file(str(output)).arrays, arrays)
