"""The command line as a user meets it."""

import subprocess
import sys
from pathlib import Path

import pytest

from frcnn_jax import cli

ROOT = Path(__file__).parents[1]


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


@pytest.mark.parametrize(
    "arguments", [["dance"], [], ["evaluate"], ["evaluate", "--work-dir", "/nowhere"]]
)
def test_mistake_of_the_frcnn_command_is_one_line_and_code_2(arguments, capsys):
    code, stderr = run(cli.main, arguments, capsys)
    assert code == 2
    assert stderr.count("\n") == 1


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
