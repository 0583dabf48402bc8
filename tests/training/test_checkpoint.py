"""Checkpoints hold a detector's spec, and insist on its preprocessing."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from frcnn_jax.config.loading import save_config
from frcnn_jax.config.preprocessing import PREPROCESSINGS
from frcnn_jax.errors import UserError
from frcnn_jax.evaluation import evaluate
from frcnn_jax.models.parameters import random_params
from frcnn_jax.training import checkpoint, train
from frcnn_jax.training.step import init_state
from frcnn_jax.weights.checkpoints import read_checkpoint
from tests.helpers import tiny

CAFFE = PREPROCESSINGS["caffe"]
PARAMS = {"head": {"fc6": {"kernel": jnp.arange(6.0).reshape(2, 3)}}}
OPTIMIZER = optax.adam(0.1)
STATE = init_state(PARAMS, OPTIMIZER, seed=3, has_ema=True)._replace(step=jnp.int32(7))


def save(folder, state=STATE, preprocessing=CAFFE) -> None:
    tiny.save_checkpoint(folder, state, spec_with(preprocessing))


def spec_with(preprocessing):
    model = dataclasses.replace(tiny.MODEL, **dataclasses.asdict(preprocessing))
    return dataclasses.replace(tiny.SPEC, model=model)


def restore(folder, preprocessing, state=STATE):
    with checkpoint.open_checkpoints(folder) as checkpoints:
        return checkpoint.restore_latest(checkpoints, state, spec_with(preprocessing))


def without_key(state):
    return state._replace(key=jax.random.key_data(state.key))


@pytest.mark.parametrize("has_ema", [True, False])
def test_state_and_progress_come_back_bit_for_bit(has_ema, tmp_path):
    state = STATE if has_ema else STATE._replace(ema=None)
    save(tmp_path, state)
    shapes = jax.eval_shape(lambda: state)
    restored, progress = restore(tmp_path, CAFFE, shapes)
    assert progress == tiny.PROGRESS
    restored, state = without_key(restored), without_key(state)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for leaf, expected in zip(
        jax.tree.leaves(restored), jax.tree.leaves(state), strict=True
    ):
        np.testing.assert_array_equal(leaf, expected)


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_detector_comes_back_with_its_preprocessing(name, tmp_path):
    save(tmp_path, preprocessing=PREPROCESSINGS[name])
    weights = read_checkpoint(tmp_path)
    assert weights.preprocessing == PREPROCESSINGS[name]
    assert weights.spec == spec_with(PREPROCESSINGS[name])
    assert weights.source == str(tmp_path / "checkpoints" / "7")
    np.testing.assert_array_equal(
        weights.arrays["head.fc6.kernel"], PARAMS["head"]["fc6"]["kernel"]
    )


def test_folder_without_a_checkpoint_has_no_state_and_no_detector(tmp_path):
    assert not checkpoint.exists(tmp_path)
    with pytest.raises(UserError, match="no checkpoint there yet"):
        read_checkpoint(tmp_path)
    with pytest.raises(UserError, match="no checkpoint there yet"):
        read_checkpoint(tmp_path / "none")


def test_only_finished_checkpoints_are_cleaned_up(tmp_path, caplog):
    save(tmp_path)
    unfinished = tmp_path / "checkpoints/8.orbax-checkpoint-tmp/metrics/metrics"
    finished = tmp_path / "checkpoints/7/metrics/metrics"
    for path in (unfinished, finished):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"validation_loss": 0.')
    with checkpoint.open_checkpoints(tmp_path):
        assert unfinished.exists()
        assert not finished.exists()
    (message,) = (r.getMessage() for r in caplog.records if "frcnn_jax" in r.name)
    assert message.startswith(f"{finished}: ")


def test_run_with_another_preprocessing_is_refused(tmp_path):
    save(tmp_path)
    with pytest.raises(UserError) as error:
        restore(tmp_path, PREPROCESSINGS["torchvision"])
    assert str(error.value) == (
        f"{tmp_path}/checkpoints/7: was trained with pixels {CAFFE}, but the config "
        f"has {PREPROCESSINGS['torchvision']}"
    )


def test_evaluation_with_another_preprocessing_is_refused(tmp_path):
    save_config(tiny.CONFIG, tmp_path / "config.json")  # torchvision's
    params = random_params(tiny.MODEL, tiny.NUM_CLASSES, 0)
    save(tmp_path, init_state(params, OPTIMIZER, 0, has_ema=False))
    with pytest.raises(UserError, match=r"was trained with pixels BGR, .*config\.json"):
        evaluate.evaluate_run(tmp_path)


def test_training_is_not_continued_with_another_preprocessing(tmp_path):
    # The run's own config.json says the same, so only the checkpoint can reveal it.
    config = dataclasses.replace(tiny.CONFIG, work_dir=str(tmp_path))
    save_config(config, tmp_path / "config.json")
    params = random_params(tiny.MODEL, tiny.NUM_CLASSES, 0)
    optimizer = tiny.make_optimizer(config.optimizer)
    save(tmp_path, init_state(params, optimizer, 0, has_ema=False))
    with pytest.raises(UserError, match="was trained with pixels BGR"):
        train.train(config)


@pytest.mark.parametrize(
    ("state", "item", "kept"),
    [
        (
            init_state({"head": jnp.zeros(3)}, OPTIMIZER, 0, has_ema=True),
            "params",
            "number of classes",
        ),
        (init_state(PARAMS, OPTIMIZER, 0, has_ema=True), "ema", "ema_decay"),
        (init_state(PARAMS, optax.sgd(0.1), 0, False), "optimizer", "optimizer.name"),
        (
            init_state(
                PARAMS, optax.chain(optax.clip_by_global_norm(1), OPTIMIZER), 0, False
            ),
            "optimizer",
            "clip_norm",
        ),
    ],
)
def test_run_whose_arrays_change_is_refused_with_what_must_stay(
    state, item, kept, tmp_path
):
    save(tmp_path, STATE._replace(ema=None))
    with pytest.raises(UserError) as error:
        restore(tmp_path, CAFFE, state)
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/checkpoints/7/{item}: does not fit ")
    assert kept in message
    assert "\n" not in message
    assert (tmp_path / "checkpoints" / "7").is_dir()


def test_checkpoint_of_another_config_is_not_taken_for_a_damaged_one(tmp_path):
    later = STATE._replace(ema=None, step=jnp.int32(8))
    with checkpoint.open_checkpoints(tmp_path, max_to_keep=2) as checkpoints:
        for state in (STATE, later):
            checkpoint.save(checkpoints, state, tiny.SPEC, tiny.PROGRESS, metrics={})
    with pytest.raises(UserError, match=r"checkpoints/8/ema: does not fit"):
        restore(tmp_path, CAFFE, STATE)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"7", "8"}


@pytest.mark.parametrize("item", ["params", "optimizer"])
def test_item_that_is_gone_is_damage(item, tmp_path):
    save(tmp_path, STATE)
    shutil.rmtree(tmp_path / "checkpoints" / "7" / item)
    with pytest.raises(UserError, match=r"checkpoints/7: cannot be read"):
        restore(tmp_path, CAFFE, STATE)


def test_run_may_drop_its_moving_average(tmp_path):
    save(tmp_path, STATE)
    restored, _ = restore(tmp_path, CAFFE, STATE._replace(ema=None))
    assert restored.ema is None


def test_checkpoint_without_a_spec_is_refused_in_one_line(tmp_path):
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
        optimizer = {"step": STATE.step, "opt_state": STATE.opt_state}
        args = ocp.args.Composite(
            params=ocp.args.StandardSave(PARAMS),
            optimizer=ocp.args.StandardSave(optimizer),
        )
        checkpoints.save(7, args=args)
        checkpoints.wait_until_finished()
    for read in (
        lambda: restore(tmp_path, CAFFE),
        lambda: read_checkpoint(tmp_path),
    ):
        with pytest.raises(UserError) as error:
            read()
        assert f"{tmp_path}/checkpoints/7: " in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "null", "{}", '{"class_names": ["a"]}', "[1]"])
def test_damaged_spec_is_refused_in_one_line(content, tmp_path):
    save(tmp_path)
    (path,) = (tmp_path / "checkpoints/7/detector").glob("metadata*")
    assert json.loads(path.read_text())["model"]["channel_order"] == "BGR"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        read_checkpoint(tmp_path)
    assert f"{tmp_path}/checkpoints/7: " in str(error.value)
    assert "\n" not in str(error.value)


def test_checkpoint_of_an_earlier_version_is_refused_with_what_to_do(tmp_path):
    save(tmp_path)
    folder = tmp_path / "checkpoints/7"
    (folder / "detector").rename(folder / "preprocessing")
    for read in (lambda: restore(tmp_path, CAFFE), lambda: read_checkpoint(tmp_path)):
        with pytest.raises(UserError, match=r"no class names.* train again in a new"):
            read()
