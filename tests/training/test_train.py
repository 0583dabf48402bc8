"""A whole run: train, stop, resume, evaluate, and what a user's mistake does."""

import dataclasses
import json
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from frcnn_jax.config.loading import read_config
from frcnn_jax.config.preprocessing import PREPROCESSINGS
from frcnn_jax.data.records import fingerprint
from frcnn_jax.data.sources import open_source
from frcnn_jax.detector import Detector
from frcnn_jax.errors import UserError
from frcnn_jax.evaluation import evaluate
from frcnn_jax.training import checkpoint, train
from frcnn_jax.training.init import init_params
from frcnn_jax.weights import convert
from tests.helpers import runs, tiny
from tests.helpers.run_files import FIGURES, read_rows, repeatable_rows


def config_in(folder: Path, **changes):
    return dataclasses.replace(tiny.CONFIG, work_dir=str(folder), **changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, train.train(config_in(folder))


def test_run_directory_holds_what_scripts_rely_on(run):
    folder, evaluation = run
    assert read_config(folder / "config.json") == config_in(folder)
    assert json.loads((folder / "evaluation.json").read_text()) == evaluation
    assert {*FIGURES, "fingerprints"} < set(evaluation)
    assert (evaluation["split"], evaluation["step"]) == ("test", 6)
    for name in ("evaluation.npz", "report.html", "report.md"):
        assert (folder / name).exists()
    assert len(list((folder / "pictures").glob("*.png"))) >= 8
    assert list((folder / "tensorboard").glob("events*"))
    assert (folder / "losses.png").stat().st_size > 1000
    assert (folder / "checkpoints" / "6").is_dir()


def test_metrics_have_a_row_for_every_logged_step(run):
    rows = read_rows(run[0])
    assert [row["step"] for row in rows] == [2, 4, 6]
    losses = {name for name in rows[0] if name.endswith("_loss")}
    assert len(losses) == 4
    for row in rows:
        total = sum(row[name] for name in losses)
        assert row["loss"] == pytest.approx(total, rel=1e-5)
        assert row["learning_rate"] > 0.0


def test_resumed_run_equals_the_whole_one_bit_for_bit(run, tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    save = checkpoint.save

    def save_and_die(checkpoints, *rest):
        save(checkpoints, *rest)
        checkpoints.wait_until_finished()
        raise KilledError

    config = config_in(tmp_path / "resumed")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_die)
        with pytest.raises(KilledError):
            train.train(config)
    # A row that the kill left behind, and one it cut off.
    with (tmp_path / "resumed/metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 9.0}\n{"step": 6, "lo')
    evaluation = train.train(config)

    assert repeatable_rows(tmp_path / "resumed") == repeatable_rows(run[0])
    assert evaluation == run[1]


@pytest.mark.slow
def test_run_in_a_thread_is_the_run_of_the_main_one(run, tmp_path):
    results = []
    config = config_in(tmp_path / "run")
    thread = threading.Thread(target=lambda: results.append(train.train(config)))
    thread.start()
    thread.join()
    assert results == [run[1]]
    assert repeatable_rows(tmp_path / "run") == repeatable_rows(run[0])


@pytest.mark.slow
def test_run_is_extended_and_never_shortened(run, tmp_path):
    folder = tmp_path / "run"
    train.train(config_in(folder, num_steps=4))
    assert train.train(config_in(folder, max_bad_steps=99)) == run[1]
    assert repeatable_rows(folder) == repeatable_rows(run[0])
    with pytest.raises(UserError, match=r"^num_steps is 4, but the run of .* made 6 "):
        train.train(config_in(folder, num_steps=4))
    assert read_config(folder / "config.json").num_steps == 6


def test_finished_run_is_only_evaluated_again(run):
    folder, evaluation = run
    before = (folder / "metrics.jsonl").read_bytes()
    assert train.train(config_in(folder)) == evaluation
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_evaluation_on_demand_equals_that_after_training(run):
    folder, evaluation = run
    (folder / "evaluation.json").unlink()
    assert evaluate.evaluate_run(folder) == evaluation
    assert (folder / "evaluation.json").exists()


@pytest.mark.parametrize("is_exported", [False, True])
def test_pretrained_detector_evaluates_as_its_run(run, tmp_path, is_exported):
    folder, evaluation = run
    pretrained, name = str(folder), f"{folder}/checkpoints/{tiny.CONFIG.num_steps}"
    if is_exported:
        pretrained = str(tmp_path / "detector.safetensors")
        convert.export(str(folder), Path(pretrained), "frcnn_jax")
        name = f"{pretrained}, SHA-256 "
    model = dataclasses.replace(tiny.MODEL, pretrained=pretrained)
    config = config_in(tmp_path / "evaluation", model=model)
    again = evaluate.evaluate_pretrained(config)
    assert all(again[name] == evaluation[name] for name in FIGURES)
    assert again["step"] is None
    assert again["detector"].startswith(name)
    assert (tmp_path / "evaluation" / "evaluation.json").exists()


def test_model_card_has_the_evaluation_of_its_checkpoint_only(run):
    folder, evaluation = run
    text = Detector.load(folder).generate_model_card().text
    assert f"`{evaluation['fingerprints']['data']}`" in text
    for name, row in evaluation["per_class"].items():
        assert (
            f"| {name} | {row['num_objects']} | {100 * row['voc07_ap']:.1f} |" in text
        )
    train_data = open_source(tiny.DATA, "train")
    assert f"- Training data: fingerprint `{fingerprint(train_data)}`" in text
    assert "Not evaluated." in Detector.load(folder, 4).generate_model_card().text


def test_evaluation_takes_another_split(run):
    folder, evaluation = run
    on_train = evaluate.evaluate_run(folder, "train")
    assert on_train["per_class"] != evaluation["per_class"]
    assert json.loads((folder / "evaluation-train.json").read_text()) == on_train
    on_step = evaluate.evaluate_run(folder, "train", step=4)
    path = folder / "evaluation-train-step4.json"
    assert json.loads(path.read_text()) == on_step
    assert json.loads((folder / "evaluation.json").read_text()) == evaluation
    with pytest.raises(UserError, match="nonsense"):
        evaluate.evaluate_run(folder, "nonsense")


def test_run_of_another_config_is_refused_with_the_changes(run):
    folder, _ = run
    before = (folder / "config.json").read_bytes()
    with pytest.raises(UserError, match="seed: 0 -> 1"):
        train.train(config_in(folder, seed=1))
    assert (folder / "config.json").read_bytes() == before


def test_missing_data_leaves_no_run_directory(tmp_path):
    data = dataclasses.replace(tiny.DATA, source="voc", root=str(tmp_path / "none"))
    with pytest.raises(UserError, match="none"):
        train.train(config_in(tmp_path / "run", data=data))
    assert not (tmp_path / "run").exists()


def test_unfit_weights_leave_no_run_directory(tmp_path):
    model = dataclasses.replace(tiny.MODEL, pretrained=str(tmp_path / "none.npz"))
    with pytest.raises(UserError, match=r"none\.npz"):
        train.train(config_in(tmp_path / "run", model=model))
    assert not (tmp_path / "run").exists()


def test_unwritable_run_directory_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        train.train(config_in(tmp_path / "file" / "run"))


def test_empty_run_directory_cannot_be_evaluated(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        evaluate.evaluate_run(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "tolerance"),
    [
        ({"JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_THREEFRY_PARTITIONABLE": "0"}, 0.0),
        ({"JAX_ENABLE_X64": "1"}, 1e-4),  # the same samples; sums in another order
    ],
)
def test_run_does_not_depend_on_jaxs_flags(flags, tolerance, tmp_path):
    rows = []
    for name, environment in (("without", {}), ("with", flags)):
        command = runs.command(tmp_path / name)
        command["env"] = command["env"] | environment
        subprocess.run(**command, check=True)
        row = read_rows(tmp_path / name)[0]
        rows.append({k: row[k] for k in row if k.endswith("loss") or "num_" in k})
    assert rows[0].keys() > {"loss", "validation_loss", "num_positive_rois"}
    assert rows[1] == pytest.approx(rows[0], rel=tolerance, abs=0.0)


@pytest.mark.slow
def test_partially_pretrained_start_uses_training_images(data_root, tmp_path):
    # The real kernels need the full width; two images of BCCD keep it short.
    data = dataclasses.replace(
        tiny.DATA,
        source="voc",
        root=str(data_root / "BCCD"),
        shorter_side=96,
        longer_side=128,
        canvases=((96, 128),),
        max_objects=40,
    )
    model = dataclasses.replace(
        tiny.MODEL,
        width=1.0,
        pretrained=str(data_root / "vgg16/vgg16_caffe_conv1_to_conv3.npz"),
    )
    config = config_in(tmp_path, data=data, model=model)
    resolved, params = init_params(config, train.open_splits(config).train)
    assert resolved.model.preprocessing == PREPROCESSINGS["caffe"]
    kernels = np.load(model.pretrained)
    np.testing.assert_array_equal(
        params["backbone"]["conv2_1"]["kernel"], kernels["conv2_1_W"]
    )
    assert not params["backbone"]["conv5_3"]["bias"].any()


def test_image_that_does_not_fit_leaves_no_run_directory(tmp_path):
    data = dataclasses.replace(tiny.DATA, max_objects=1)
    with pytest.raises(UserError, match="max_objects is 1"):
        train.train(config_in(tmp_path / "run", data=data))
    assert not (tmp_path / "run").exists()
