"""Mistakes with `frcnn import-weights` and `frcnn export-weights`.

Each ends with one line and code 2, and writes nothing.
"""

import sys

import huggingface_hub
import numpy as np
import pytest
import safetensors.numpy

from frcnn_jax import cli
from frcnn_jax.config.loading import save_config
from tests.helpers import foreign, tiny
from tests.helpers.containers import (
    FULL_WIDTH,
    LAYERS,
    write_npz,
    write_safetensors,
)

both_commands = pytest.mark.parametrize("command", ["import-weights", "export-weights"])


@both_commands
def test_existing_output_is_kept(command, source, output, mistake):
    output.write_text("mine")
    assert "exists already" in mistake(command, source, output)


@both_commands
@pytest.mark.parametrize("name", ["output.npz", "output", "none/output.safetensors"])
def test_impossible_output_is_refused(command, name, source, tmp_path, mistake):
    assert str(tmp_path / name) in mistake(command, source, tmp_path / name)


@both_commands
@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 cut", b"<html>"], ids=["empty", "cut", "html"]
)
def test_damaged_source_is_refused(command, content, source, output, mistake):
    source.write_bytes(content)
    assert str(source) in mistake(command, source, output)


@both_commands
def test_missing_source_is_refused(command, output, mistake):
    assert "No such file" in mistake(command, "none.pth", output)


@both_commands
def test_unreachable_hub_is_refused(command, output, mistake, monkeypatch):
    def fail(*_):
        raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    message = mistake(command, "hf://timm/vgg16.tv_in1k", output)
    assert "hf://timm/vgg16.tv_in1k: cannot be downloaded" in message


@both_commands
def test_folder_without_a_run_is_refused(command, output, tmp_path, mistake):
    assert str(tmp_path) in mistake(command, tmp_path, output)


@both_commands
def test_line_breaks_in_names_do_not_make_two_lines(command, output, tmp_path, mistake):
    arrays = {"features.0.weight\nerror: all is well": np.zeros(2, np.float16)}
    source = write_safetensors(tmp_path / "source.safetensors", arrays)
    assert "is F16" in mistake(command, source, output)


@both_commands
def test_full_disk_leaves_no_file(command, source, output, mistake, monkeypatch):
    def fail(arrays, path, metadata=None):
        path.write_bytes(b"half a fi")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", fail)
    assert "No space left on device" in mistake(command, source, output)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (foreign.torchvision(), "another architecture"),  # an eighth of the width
        (FULL_WIDTH | {"features.0.bias": np.zeros(63, np.float32)}, "(63,)"),
        ({"layer1.0.conv1.weight": np.zeros(1, np.float32)}, "layer1.0.conv1.weight"),
        (FULL_WIDTH | {"features.0.bias": np.zeros(64, np.float16)}, "F16"),
        (foreign.chenyuntc(), "another architecture"),
    ],
    ids=["narrow", "shape", "resnet", "half", "detector"],
)
def test_import_of_another_architecture_is_refused(
    arrays, message, tmp_path, output, mistake
):
    source = write_safetensors(tmp_path / "source.safetensors", arrays)
    assert message in mistake("import-weights", source, output)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--preprocessing", "nonsense"], "nonsense"),
        (["--anchor-scales", "eight"], "eight"),
        (["--nonsense"], "--nonsense"),
        (["--class-names", "cat", "dog"], "is no detector"),
        (["--anchor-ratios", "1"], "is no detector"),
    ],
)
def test_wrong_option_is_refused(option, message, source, output, mistake):
    assert message in mistake("import-weights", source, output, *option)


def test_impossible_anchors_are_refused(tmp_path, output, mistake):
    source = write_safetensors(tmp_path / "a.safetensors", foreign.chenyuntc())
    options = ["--anchor-scales", "-1", "2"]
    assert "anchor_scales" in mistake("import-weights", source, output, *options)


def test_file_of_ours_is_not_imported_again(source, output, tmp_path, mistake):
    cli.main(["import-weights", str(source), str(output)])
    message = mistake("import-weights", output, tmp_path / "again.safetensors")
    assert "is a file of frcnn_jax already" in message


def test_missing_pytorch_is_named(tmp_path, output, mistake, monkeypatch):
    source = tmp_path / "source.pth"
    source.write_bytes(b"\x80\x02 a pickle")
    monkeypatch.setitem(sys.modules, "torch", None)
    message = mistake("import-weights", source, output)
    assert "pip install 'frcnn_jax[torch]'" in message


def test_pickled_code_is_not_executed(tmp_path, output, mistake):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    array = np.array([Bomb()], dtype=object)
    source = write_npz(tmp_path / "bomb.npz", {"conv1_1_W": array})
    mistake("import-weights", source, output)  # which finds no new file
    torch = pytest.importorskip("torch", reason="needs the extra parity")
    torch.save({"features.0.weight": Bomb()}, source)
    assert "would run its code" in mistake("import-weights", source, output)


def test_run_without_a_checkpoint_is_refused(output, tmp_path, mistake):
    save_config(tiny.CONFIG, tmp_path / "config.json")
    assert "no checkpoint there yet" in mistake("export-weights", tmp_path, output)


def test_unknown_layers_without_preprocessing_are_refused(tmp_path, output, mistake):
    source = write_npz(tmp_path / "source.npz", LAYERS)
    assert "does not say how pixels" in mistake("import-weights", source, output)
