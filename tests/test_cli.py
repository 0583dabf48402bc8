"""The command line as a user meets it."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from frcnn_jax import cli
from frcnn_jax.evaluation import evaluate

ROOT = Path(__file__).parents[1]
CODE = "from frcnn_jax import cli; cli.main()"  # of a process of its own


def run(function, arguments, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        function(arguments)
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config is missing"),
        (["--config", "nowhere.py"], "nowhere.py"),
        (["--config", f"{ROOT}/configs/shapes.py", "--nonsense", "1"], "--nonsense"),
        (
            ["--config", f"{ROOT}/configs/shapes.py", "--batch-size", "0"],
            "batch_size is 0",
        ),
        (
            ["--config", f"{ROOT}/configs/voc07_vgg16.py", "--data.root", "/nowhere"],
            "/nowhere",
        ),
    ],
    ids=["no-config", "no-file", "field", "value", "folder"],
)
def test_mistake_is_one_line_and_code_2(arguments, message, capsys):
    code, stderr = run(cli.train, arguments, capsys)
    assert code == 2
    assert message in stderr
    assert stderr.count("\n") == 1


SHAPES = ["--config", f"{ROOT}/configs/shapes.py"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("dance", "dance"),
        ("", "command"),
        ("evaluate", "--work-dir DIR or --config PATH"),
        ("evaluate --work-dir /nowhere", "/nowhere/config.json"),
        ("evaluate --work-dir=~/nowhere", f"{Path.home()}/nowhere/config.json"),
        ("evaluate --work-dir /nowhere --seed 1", "--seed: a run is evaluated with"),
        ("evaluate SHAPES --step 7", "--step needs --work-dir"),
        ("evaluate --config nowhere.py", "nowhere.py"),
        ("evaluate SHAPES", "model.pretrained is empty"),
        ("evaluate SHAPES --split nonsense", "nonsense"),
        ("evaluate SHAPES --nonsense 1", "--nonsense"),
        ("evaluate SHAPES --model.pretrained /nowhere.pth", "/nowhere.pth"),
        ("predict runs/none", "image"),
        ("predict runs/none a.jpg", "--out"),
        ("predict runs/none SHAPES.jpg --out /nowhere", "SHAPES.jpg"),
        ("benchmark", "model"),
        ("benchmark /nowhere", "/nowhere"),
        ("benchmark /nowhere --repeats 0", "--repeats is 0"),
        ("export", "source"),
        ("export runs", "output"),
        ("export none.safetensors exported", "none.safetensors"),
        ("export none.safetensors exported --format pdf", "pdf"),
        ("export none.safetensors exported --step first", "'first', expected a number"),
        ("import-weights", "source"),
        ("import-weights a.pth", "output"),
        ("import-weights a.pth b.pth", "b.pth"),
        ("import-weights none.pth b.safetensors", "none.pth"),
        ("export-weights", "source"),
        (
            "export-weights none.pth b.safetensors --step 3",
            "step 3 needs a run directory",
        ),
        ("report none --step first", "'first', expected a number"),
        ("report none --step best", "no checkpoint there yet"),
        ("export-weights none.pth b.pth --format caffe", "caffe"),
        ("export-weights none.pth b.npz --format torchvision", "b.npz"),
    ],
)
def test_mistake_of_the_frcnn_command_is_one_line_and_code_2(
    arguments, message, capsys
):
    words = [SHAPES if word == "SHAPES" else [word] for word in arguments.split()]
    code, stderr = run(cli.main, list(itertools.chain(*words)), capsys)
    assert code == 2
    assert message in stderr
    assert stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    ["evaluate", "predict", "benchmark", "export", "import-weights", "export-weights"],
)
def test_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: frcnn {command}" in capsys.readouterr().out


def test_evaluate_takes_a_config_with_any_field(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(
        evaluate, "evaluate_pretrained", lambda *args: calls.append(args)
    )
    fields = ["--model.pretrained", "a.pth", "--seed", "3", "--work-dir", str(tmp_path)]
    cli.main(["evaluate", *SHAPES, *fields, "--split", "train"])
    ((config, split),) = calls
    assert (config.model.pretrained, config.seed) == ("a.pth", 3)
    assert (config.work_dir, split) == (str(tmp_path), "train")


def test_script_explains_every_field_quickly():
    done = subprocess.run(
        [sys.executable, "train.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for field in ("--work-dir", "--seed", "--num-steps", "--data.root", "--optimizer."):
        assert field in done.stdout
    assert not done.stderr


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_device_that_is_not_there_is_one_line_and_code_2(command, tmp_path):
    options = ["--work-dir", str(tmp_path / "run")]
    if command == "evaluate":
        options += ["--model.pretrained", "a.pth"]
    done = subprocess.run(
        [sys.executable, "-c", CODE, command, *SHAPES, *options],
        env=os.environ | {"JAX_PLATFORMS": "nonsense"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "JAX cannot start (JAX_PLATFORMS=nonsense): " in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_interrupt_is_one_line(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "evaluate_run", interrupt)
    assert run(cli.main, ["evaluate", "--work-dir", "run"], capsys) == (
        130,
        "interrupted\n",
    )


def test_reader_that_goes_away_is_no_error():
    command = (
        f"{sys.executable} -c '{CODE}' train --help | true; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert not done.stderr
