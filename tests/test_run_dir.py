"""The run directory: what may be in it, who may write there, what may change."""

import dataclasses
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from frcnn_jax import cli, distributed, run_dir
from frcnn_jax.config.loading import save_config
from frcnn_jax.errors import UserError
from frcnn_jax.evaluation import evaluate
from frcnn_jax.training import train
from tests.helpers import fields, tiny


def config_in(folder: Path, **changes):
    return dataclasses.replace(tiny.CONFIG, work_dir=str(folder), **changes)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def fill(folder: Path, *names: str) -> Path:
    """Writes files; a name that ends in a slash makes a folder."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_text("theirs\n")
    return folder


@pytest.fixture
def no_work(monkeypatch):
    """Fails as soon as data are opened."""
    for module in (train, evaluate):
        monkeypatch.setattr(module, "open_source", lambda *_: pytest.fail("opened"))


FOREIGN = [
    ("notes.txt",),
    ("metrics.jsonl",),
    ("train.jsonl", "checkpoints/"),
    (".hidden",),
    ("run.lock", "a", "config.json.tmp"),
]


@pytest.mark.parametrize("names", FOREIGN, ids=" ".join)
@pytest.mark.parametrize("start", [train.train, evaluate.evaluate_pretrained])
def test_directory_of_something_else_is_refused_and_left_alone(
    names, start, tmp_path, no_work
):
    folder = fill(tmp_path / "theirs", *names)
    before = contents(folder)
    with pytest.raises(UserError) as error:
        start(config_in(folder))
    assert str(error.value).startswith(f"{folder} is not empty and holds no run (")
    assert "\n" not in str(error.value)
    assert contents(folder) == before


def test_command_refuses_it_with_code_2(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "_start", lambda: None)
    shapes = ["--config", "configs/shapes.py", "--work-dir", str(fill(tmp_path, "a"))]
    for arguments in (["train", *shapes], ["evaluate", *shapes]):
        with pytest.raises(SystemExit, match="2"):
            cli.main(arguments)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {tmp_path} is not empty and holds no run (a)")


@pytest.mark.parametrize("text", ["{", '{"architectures": ["BertModel"]}', "[]", ""])
def test_config_of_another_program_is_refused_and_left_alone(text, tmp_path, no_work):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json: "):
        train.train(config_in(tmp_path))
    assert contents(tmp_path) == {"config.json": text.encode()}


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("run.lock",),
        ("run.lock", "config.json.tmp"),
        ("cache/programs/a",),
        ("images/total",),
    ],
    ids=["empty", "locked", "config", "cache", "images"],
)
def test_what_a_killed_start_leaves_is_started_again(names, tmp_path):
    cache = str(tmp_path / "cache" / "programs")
    config = config_in(fill(tmp_path, *names), compilation_cache=cache)
    config = fields.replace(config, "data.image_cache", str(tmp_path / "images"))
    assert run_dir.match_stored_config(config) == config


def test_second_run_in_a_directory_is_refused(tmp_path, monkeypatch):
    config = config_in(tmp_path)
    monkeypatch.setattr(train, "init_params", lambda config, _: (config, {}))
    with run_dir.locked(tmp_path):
        with pytest.raises(UserError) as error:
            train.train(config)
        assert contents(tmp_path) == {"run.lock": b""}
    assert str(error.value) == f"{tmp_path}: another process is training there"
    with run_dir.locked(tmp_path):  # is free again
        pass


def test_damage_is_not_set_aside_while_another_process_trains(tmp_path):
    config = config_in(tmp_path)
    save_config(config, tmp_path / "config.json")
    fill(tmp_path, "checkpoints/4/metrics/metrics", "checkpoints/4/params/d")
    with run_dir.locked(tmp_path):
        before = contents(tmp_path)
        with pytest.raises(UserError, match="another process is training there"):
            train.train(config)
        assert contents(tmp_path) == before


def test_run_that_appeared_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    config = config_in(tmp_path / "run")

    def init_slowly(config, _):
        fill(tmp_path / "run", "checkpoints/6/params/d")
        return config, {}

    monkeypatch.setattr(train, "init_params", init_slowly)
    with pytest.raises(UserError, match="another process has just started a run there"):
        train.train(config)
    assert not (tmp_path / "run" / "config.json").exists()


def test_kill_releases_the_directory(tmp_path):
    program = (
        "import pathlib, sys, time; from frcnn_jax import run_dir\n"
        "with run_dir.locked(pathlib.Path(sys.argv[1])):\n"
        "    print('locked', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        with (
            pytest.raises(UserError, match="another process"),
            run_dir.locked(tmp_path),
        ):
            pass
        process.kill()
        process.wait()
    with run_dir.locked(tmp_path):
        pass


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("num_steps", 7),
        ("num_epochs", 3),
        ("log_every", 3),
        ("log_hardest", True),
        ("checkpoint_every", 1),
        ("max_to_keep", 1),
        ("max_bad_steps", 99),
        ("compilation_cache", ""),
        ("data.num_workers", 1),
        ("data.image_cache", "there"),
        ("data.image_cache_gigabytes", 1.0),
        ("resume.allow_changes", True),
        ("distributed.process_id", 0),
    ],
)
def test_what_changes_no_parameter_may_change_on_resume(path, value, tmp_path):
    config = config_in(tmp_path)
    save_config(config, tmp_path / "config.json")
    changed = fields.replace(config, path, value)
    assert run_dir.match_stored_config(changed) == changed


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 1),
        ("batch_size", 1),
        ("micro_batches", 2),
        ("data.root", "elsewhere"),
        ("data.max_objects", 7),
        ("data.color_jitter", 0.1),
        ("data.validation_split", "test"),
        ("model.dropout", 0.5),
        ("model.pretrained", "a.pth"),
        ("model.detection.score_threshold", 0.5),
        ("optimizer.boundaries", (3,)),
        ("optimizer.ema_decay", 0.9),
    ],
)
def test_other_changes_are_refused_on_resume_unless_allowed(path, value, tmp_path):
    config = config_in(tmp_path)
    save_config(config, tmp_path / "config.json")
    changed = fields.replace(config, path, value)
    with pytest.raises(UserError, match=f"{path}: .* -> .*; choose"):
        run_dir.match_stored_config(changed)
    allowed = fields.replace(changed, "resume.allow_changes", True)
    assert run_dir.match_stored_config(allowed) == allowed


@pytest.mark.parametrize("field", ["num_steps", "log_every", "max_to_keep", "seed"])
def test_processes_must_agree_on_what_a_resume_may_change(field, tmp_path, monkeypatch):
    config = config_in(tmp_path)
    first = dataclasses.asdict(config) | {field: 77, "work_dir": "elsewhere"}
    monkeypatch.setattr(distributed, "broadcast_text", lambda _: json.dumps(first))
    monkeypatch.setattr(distributed, "gather_flags", lambda flag: np.array([0, flag]))
    with pytest.raises(UserError, match=rf"process 1 .*\({field}: 77 -> "):
        run_dir.check_processes(config)


def test_processes_must_start_from_the_same(monkeypatch):
    distributed.check_same("a", "another b")
    monkeypatch.setattr(distributed, "broadcast_text", lambda _: "b")
    monkeypatch.setattr(distributed, "gather_flags", lambda flag: np.array([0, flag]))
    distributed.check_same("b", "another b")
    with pytest.raises(UserError, match=r"^process 1 has another b than process 0$"):
        distributed.check_same("a", "another b")


def test_preemption_is_not_watched_for_outside_the_main_thread():
    answers = []

    def watch() -> None:
        with distributed.watch_for_preemption() as preempted:
            answers.append(preempted(1))

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert answers == [False]
