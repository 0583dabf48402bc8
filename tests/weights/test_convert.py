"""`frcnn import-weights` and `frcnn export-weights` as a user meets them.

Files of few layers keep full-width VGG16 small: its conv1_1 has 1728 weights.
"""

import hashlib
from pathlib import Path

import huggingface_hub
import numpy as np
import optax
import pytest

from frcnn_jax import cli
from frcnn_jax.config.loading import save_config
from frcnn_jax.config.preprocessing import PREPROCESSINGS
from frcnn_jax.models.parameters import flatten, random_params
from frcnn_jax.training.step import init_state
from frcnn_jax.weights.importing import read_weights
from tests.helpers import tiny
from tests.helpers.containers import LAYERS, assert_same, write_npz


def test_real_kernels_are_imported_with_a_report(data_root, output, capsys):
    source = data_root / "vgg16/vgg16_caffe_conv1_to_conv3.npz"
    cli.main(["import-weights", str(source), str(output)])
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert capsys.readouterr().out.splitlines() == [
        f"{source}: VGG16 layer by layer, SHA-256 {digest}",
        "  Caffe's published convolutions: 14 of 14 arrays",
        "  loaded: backbone.conv1_1..backbone.conv3_3",
        "  skipped: conv4_1_b, conv4_2_b, conv4_3_b, conv5_1_b, conv5_2_b, conv5_3_b",
        "  missing, random: backbone.conv4_1..backbone.conv5_3, head.delta, head.fc6, "
        "head.fc7, head.score, rpn.conv, rpn.delta, rpn.score",
        "  pixels: BGR, 0..255, minus 103.939 116.779 123.68, divided by 1.0 1.0 1.0",
        f"wrote {output}, 7 MiB",
    ]
    weights = read_weights(str(output))
    assert weights.preprocessing == PREPROCESSINGS["caffe"]
    with np.load(source) as layers:
        expected = {
            f"backbone.{name[:-2]}.{'kernel' if name.endswith('W') else 'bias'}": array
            for name, array in layers.items()
            if name < "conv4"
        }
    assert_same(weights.arrays, expected)


def test_address_of_the_hub_is_imported(source, output, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: str(source))
    cli.main(["import-weights", "hf://timm/vgg16.tv_in1k", str(output)])
    assert read_weights(str(output)).preprocessing == PREPROCESSINGS["torchvision"]
    assert "hf://timm/vgg16.tv_in1k: torchvision VGG16" in capsys.readouterr().out


def test_unknown_layers_are_imported_with_preprocessing(tmp_path, output):
    source = write_npz(tmp_path / "source.npz", LAYERS)
    options = ["--preprocessing", "caffe-rgb"]
    cli.main(["import-weights", str(source), str(output), *options])
    assert read_weights(str(output)).preprocessing == PREPROCESSINGS["caffe-rgb"]


@pytest.fixture(scope="module")
def params():
    return random_params(tiny.MODEL, tiny.NUM_CLASSES, 0)


@pytest.fixture
def work_dir(params, tmp_path) -> Path:
    work_dir = tmp_path / "run"
    work_dir.mkdir()
    save_config(tiny.CONFIG, work_dir / "config.json")
    state = init_state(params, optax.sgd(0.1), seed=0, has_ema=False)
    tiny.save_checkpoint(work_dir, state)
    return work_dir


def test_run_is_exported_as_model_pretrained(work_dir, params, output):
    cli.main(["export-weights", str(work_dir), str(output)])
    weights = read_weights(str(output))
    expected = flatten(params)
    assert_same(weights.arrays, expected)
    assert weights.preprocessing == PREPROCESSINGS["torchvision"]
    assert weights.spec == tiny.SPEC


def test_run_is_exported_for_another_project_and_back(work_dir, params, tmp_path):
    output = tmp_path / "detector.safetensors"
    command = ["export-weights", str(work_dir), str(output)]
    cli.main([*command, "--format", "chenyuntc"])
    weights = read_weights(str(output), anchor_scales=(1.0, 2.0))
    expected = flatten(params)
    assert_same(weights.arrays, expected)


def test_step_of_the_run_is_exported(work_dir, output, capsys):
    options = ["--step", "7"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["export-weights", str(work_dir), str(output), *options])
    assert stop.value.code == 2
    assert "no checkpoint 7, only" in capsys.readouterr().err
    options = ["--step", "best"]
    with pytest.raises(SystemExit):
        cli.main(["export-weights", str(work_dir), str(output), *options])
    assert "no checkpoint was validated" in capsys.readouterr().err
