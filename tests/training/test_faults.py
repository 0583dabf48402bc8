"""Faults from outside: signals, damaged files, full disks, dead workers, changes."""

import dataclasses
import functools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
from pathlib import Path

import jax
import pytest

from frcnn_jax import cli, distributed, run_dir
from frcnn_jax.config import ResumeConfig
from frcnn_jax.config.loading import read_config
from frcnn_jax.errors import UserError
from frcnn_jax.evaluation import evaluate
from frcnn_jax.evaluation.evaluate import Validation
from frcnn_jax.models.parameters import abstract_detector
from frcnn_jax.training import checkpoint, train
from frcnn_jax.training.step import init_state
from frcnn_jax.weights import convert
from frcnn_jax.weights.checkpoints import BEST_METRIC, read_checkpoint
from tests.helpers import runs, tiny
from tests.helpers.run_files import hash_checkpoint, repeatable_rows

ALLOW = ResumeConfig(allow_changes=True)

# Threads of TensorStore's that still read when another has met damage.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore:.*Exception ignored.*:pytest.PytestUnraisableExceptionWarning"
    ),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train.train(runs.config_in(folder))
    return folder


def steps(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").iterdir()}


def contents(folder: Path) -> dict[Path, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files}


def refuse(config) -> str:
    """Trains, which has to fail with one line; returns it."""
    with pytest.raises(UserError) as error:
        train.train(config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_sigterm_saves_its_step_and_the_run_continues_to_the_bit(
    whole, tmp_path, caplog
):
    config = runs.config_in(tmp_path)
    with runs.at_step(3, runs.terminate), caplog.at_level("INFO"):
        assert train.train(config) is None
    assert f"stopped by SIGTERM; saved step 3 of {tmp_path}" in caplog.text
    assert steps(tmp_path) == {"2", "3"}
    train.train(config)
    runs.assert_same(tmp_path, whole)


KINDS = {
    "parameters": "params/ocdbt.process_0/d/*",
    "moving mean": "ema/ocdbt.process_0/d/*",
    "optimizer": "optimizer/ocdbt.process_0/d/*",
    "index": "params/manifest.ocdbt",
    "shapes": "optimizer/_METADATA",
    "progress": "progress/metadata",
    "detector": "detector/metadata",
}


def damage(folder: Path, pattern: str, how: str) -> None:
    path = max((folder / "checkpoints/6").glob(pattern), key=lambda p: p.stat().st_size)
    if how == "cut off":
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.unlink()


def restore(folder: Path):
    config = runs.CONFIG
    _, shapes = abstract_detector(tiny.MODEL, tiny.NUM_CLASSES)
    make = functools.partial(
        init_state,
        optimizer=tiny.make_optimizer(config.optimizer),
        seed=config.seed,
        has_ema=True,
    )
    expected = distributed.replicated_shapes(
        jax.eval_shape(make, shapes), distributed.make_mesh()
    )
    with checkpoint.open_checkpoints(folder, 5) as checkpoints:
        return checkpoint.restore_latest(checkpoints, expected, tiny.SPEC)


@pytest.mark.parametrize("how", ["cut off", "gone"])
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_checkpoint_is_set_aside_for_the_one_before(
    kind, how, whole, tmp_path, caplog
):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    damage(folder, KINDS[kind], how)
    state, _ = restore(folder)
    assert int(state.step) == 4
    assert steps(folder) == {"2", "4", "damaged-6"}
    (message,) = (r.getMessage() for r in caplog.records if "frcnn_jax" in r.name)
    assert message.startswith("skipped a damaged checkpoint, now damaged-6: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("pattern", "how"),
    [
        ("_CHECKPOINT_METADATA", "cut off"),
        ("_CHECKPOINT_METADATA", "gone"),
        ("metrics/metrics", "cut off"),
        ("metrics/metrics", "gone"),
    ],
)
def test_damage_to_what_no_run_needs_is_survived(pattern, how, whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    damage(folder, pattern, how)
    state, _ = restore(folder)
    assert int(state.step) == 6
    assert steps(folder) == {"2", "4", "6"}


def test_run_goes_on_from_before_damage_and_an_unfinished_write(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.copytree(
        folder / "checkpoints/2", folder / "checkpoints/6.orbax-checkpoint-tmp"
    )
    damage(folder, KINDS["parameters"], "cut off")
    train.train(runs.config_in(folder))
    assert steps(folder) == {"2", "4", "6", "damaged-6"}
    runs.assert_same(folder, whole)


def test_damage_to_the_only_checkpoint_deletes_nothing(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoints/2")
    shutil.rmtree(folder / "checkpoints/4")
    damage(folder, KINDS["optimizer"], "cut off")
    before = contents(folder)
    assert refuse(runs.config_in(folder)).startswith(
        f"{folder}/checkpoints/6: cannot be read: "
    )
    assert contents(folder) == before


def test_full_disk_ends_with_one_line_and_the_run_goes_on_later(whole, tmp_path):
    folder = runs.interrupted(whole, tmp_path / "run")
    before = hash_checkpoint(folder)
    command = runs.command(folder)
    # No file of more than 400 blocks of 512 bytes; the arrays of a checkpoint are.
    limited = ["sh", "-c", 'ulimit -f 400; exec "$@"', "sh", *command.pop("args")]
    run = subprocess.run(limited, **command, capture_output=True, text=True)
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1] == (
        f"error: {folder}/checkpoints: cannot write a checkpoint: File too large; "
        "the earlier ones are intact"
    )
    assert hash_checkpoint(folder) == before
    train.train(runs.config_in(folder))
    runs.assert_same(folder, whole)


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json.tmp"])
def test_unwritable_file_is_named_and_spares_the_checkpoints(name, whole, tmp_path):
    folder = runs.interrupted(whole, tmp_path / "run")
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    written = f"{folder}/{name.removesuffix('.tmp')}"
    assert refuse(runs.config_in(folder)) == f"cannot write {written}: Is a directory"
    assert int(restore(folder)[0].step) == 4


def test_run_directory_where_none_can_be_made_is_named():
    assert refuse(runs.config_in(Path("/proc/none/run"))).startswith(
        "cannot write /proc/none"
    )


def test_killed_data_worker_ends_the_run_which_goes_on_without(tmp_path):
    def kill_workers():
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGKILL)

    data = dataclasses.replace(runs.CONFIG.data, validation_split="", num_workers=1)
    config = runs.config_in(tmp_path, num_steps=14, log_every=7, data=data)
    with runs.at_step(3, kill_workers):
        assert refuse(config).startswith("a data worker process died")
    data = dataclasses.replace(data, num_workers=0)
    assert train.train(dataclasses.replace(config, data=data))
    assert [row["step"] for row in repeatable_rows(tmp_path)] == ["7", "14"]


@pytest.mark.parametrize(
    ("section", "field", "value", "difference"),
    [
        ("optimizer", "learning_rate", 0.5, "optimizer.learning_rate: 0.001 -> 0.5"),
        ("data", "max_objects", 7, "data.max_objects: 6 -> 7"),
        ("data", "num_workers", 1, None),
        (None, "log_hardest", True, None),
        (None, "max_to_keep", 1, None),
    ],
)
def test_only_changes_of_the_result_hinder_a_resume(
    section, field, value, difference, whole
):
    config = runs.config_in(whole)
    if section:
        changed = dataclasses.replace(getattr(config, section), **{field: value})
        config = dataclasses.replace(config, **{section: changed})
    else:
        config = dataclasses.replace(config, **{field: value})
    if difference is None:
        assert run_dir.match_stored_config(config) == config
    else:
        with pytest.raises(UserError, match=difference):
            run_dir.match_stored_config(config)
        config = dataclasses.replace(config, resume=ALLOW)
        assert run_dir.match_stored_config(config) == config


def test_allowed_change_is_made_and_stored(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    data = dataclasses.replace(runs.CONFIG.data, flip_probability=0.25)
    config = runs.config_in(folder, num_steps=7, data=data)
    assert "data.flip_probability: 0.5 -> 0.25" in refuse(config)
    train.train(dataclasses.replace(config, resume=ALLOW))
    assert read_config(folder / "config.json") == config
    assert [row["step"] for row in repeatable_rows(folder)] == ["2", "4", "6", "7"]
    assert repeatable_rows(folder)[:3] == repeatable_rows(whole)


def test_extended_run_has_the_bits_of_a_run_of_that_length(whole, tmp_path):
    train.train(runs.config_in(tmp_path, num_steps=4))
    train.train(runs.config_in(tmp_path))
    runs.assert_same(tmp_path, whole)


def test_run_is_not_taken_back_to_fewer_steps_than_it_made(whole):
    before = contents(whole)
    message = refuse(runs.config_in(whole, num_steps=4))
    assert message.startswith(f"num_steps is 4, but the run of {whole} has made 6")
    assert contents(whole).items() - before.items() == set()


def test_run_on_other_training_data_is_refused(whole, monkeypatch):
    before = contents(whole)
    monkeypatch.setattr(train, "fingerprint", lambda _: "0123456789abcdef")
    assert "other training data (fingerprint" in refuse(runs.config_in(whole))
    assert contents(whole) == before


def test_accepted_training_data_are_those_of_the_run_from_then_on(
    whole, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    original = train.fingerprint
    monkeypatch.setattr(train, "fingerprint", lambda _: "0123456789abcdef")
    config = runs.config_in(folder, num_steps=7, resume=ALLOW)
    train.train(config)
    config = dataclasses.replace(config, num_steps=8, resume=ResumeConfig())
    train.train(config)
    monkeypatch.setattr(train, "fingerprint", original)
    assert "other training data" in refuse(dataclasses.replace(config, num_steps=9))


def test_resumed_run_needs_its_pretrained_weights_no_more(whole, tmp_path, monkeypatch):
    weights = tmp_path / "detector.safetensors"
    convert.export(str(whole), weights, "frcnn_jax")
    model = dataclasses.replace(tiny.MODEL, pretrained=str(weights))
    config = runs.config_in(tmp_path / "run", num_steps=2, model=model)
    with runs.at_step(1, runs.terminate):
        assert train.train(config) is None
    weights.unlink()
    monkeypatch.delattr(train, "init_params")
    assert train.train(config)


def test_best_validated_checkpoint_stays_beside_the_latest(tmp_path, monkeypatch):
    figures = iter([0.25, 0.5, 0.125])
    monkeypatch.setattr(
        train,
        "make_validate",
        lambda *_: lambda _: Validation({BEST_METRIC: next(figures)}, {}),
    )
    train.train(runs.config_in(tmp_path, max_to_keep=1))
    assert steps(tmp_path) == {"4", "6"}
    for step, name in (("best", "4"), ("latest", "6"), (4, "4")):
        assert Path(read_checkpoint(tmp_path, step).source).name == name
    best = evaluate.evaluate_run(tmp_path, step="best")
    assert best == json.loads((tmp_path / "evaluation-step4.json").read_text())
    assert evaluate.evaluate_run(tmp_path, step=4) == best


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("5", "checkpoints: no checkpoint 5, only 2, 4, 6"),
        ("last", "'last', expected a number, latest or best"),
    ],
)
def test_missing_step_is_one_line(step, message, whole, monkeypatch, capsys):
    monkeypatch.setattr(cli, "_start", lambda: None)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["evaluate", "--work-dir", str(whole), "--step", step])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(message)


def test_step_may_be_damaged_again(whole, tmp_path):
    folder = tmp_path / "run"
    for _ in range(2):
        shutil.copytree(whole, folder, dirs_exist_ok=True)
        damage(folder, KINDS["progress"], "gone")
        restore(folder)
    assert steps(folder) == {"2", "4", "damaged-6", "damaged-6-2"}
