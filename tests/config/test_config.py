"""Configs: their checks, the files, the command line."""

import dataclasses
import inspect
import json
from pathlib import Path

import numpy as np
import pytest

from frcnn_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ProposalConfig,
)
from frcnn_jax.config.loading import (
    config_from_dict,
    load_config,
    override_config,
    read_config,
    save_config,
)
from frcnn_jax.data import transforms
from frcnn_jax.data.loader import evaluation_batches
from frcnn_jax.errors import UserError
from tests.helpers.fields import fields
from tests.helpers.sized import SizedSource

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_config_survives_json(path, tmp_path):
    config = load_config(path)
    save_config(config, tmp_path / "config.json")
    assert read_config(tmp_path / "config.json") == config


def test_notebook_config_has_the_notebooks_numbers():
    config = load_config(CONFIGS[0].with_name("notebook.py"))
    assert config.data.canvases == ((800, 800),)
    assert config.model.losses.localization_weight == 10
    assert config.model.losses.normalizer == "positives"
    assert config.model.activation == "none"
    assert config.model.proposals.iou_threshold == 0.7
    assert not config.model.proposal_targets.append_gt


@pytest.mark.parametrize("size", [(500, 333), (375, 500), (800, 800), (1, 4000)])
def test_notebook_config_makes_every_image_800_by_800(size):
    config = load_config(CONFIGS[0].with_name("notebook.py"))
    (batch,) = evaluation_batches(SizedSource([size]), config.data, batch_size=1)
    np.testing.assert_array_equal(batch.image_sizes, [[800, 800]])
    np.testing.assert_allclose(batch.boxes[0, 0], [0, 0, 800, 800], rtol=1e-6)
    assert batch.canvas == (800, 800)


def test_recipe_has_the_published_numbers():
    config = load_config(CONFIGS[0].with_name("voc07_vgg16.py"))
    optimizer = config.optimizer
    assert (optimizer.learning_rate, optimizer.momentum) == (1e-3, 0.9)
    assert (optimizer.weight_decay, optimizer.bias_rate_factor) == (5e-4, 2.0)
    assert config.model.losses.rpn_beta == pytest.approx(1 / 3.0**2)
    assert config.model.losses.delta_std == (0.1, 0.1, 0.2, 0.2)
    assert len(config.data.class_names) == 20


def test_recipe_on_both_years_differs_in_data_and_schedule_only():
    single, both = (
        load_config(CONFIGS[0].with_name(name))
        for name in ("voc07_vgg16.py", "voc0712_vgg16.py")
    )
    assert (both.num_steps, both.optimizer.boundaries) == (110_000, (80_000,))
    assert both.data.train_split == "VOC2007/trainval+VOC2012/trainval"
    assert both.data.test_split == "VOC2007/test"
    places = ("root", "train_split", "test_split")
    changes = {name: getattr(single.data, name) for name in places}
    assert dataclasses.replace(both.data, **changes) == single.data
    assert both.model == single.model


def test_recipe_on_tfds_differs_in_the_source_only():
    folder, tfds = (
        load_config(CONFIGS[0].with_name(name))
        for name in ("voc07_vgg16.py", "voc07_tfds.py")
    )
    places = ("source", "root", "train_split")
    changes = {name: getattr(folder.data, name) for name in places}
    data = dataclasses.replace(tfds.data, **changes)
    assert dataclasses.replace(tfds, data=data, work_dir=folder.work_dir) == folder


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"class_names": ("a", "b", "a")}, r"data\.class_names is .*, expected differ"),
        ({"train_split": ""}, r"data\.train_split is '', expected the name of a split"),
        ({"test_split": ""}, r"data\.test_split is '', expected the name of a split"),
        (
            {"source": "shapes", "train_split": "test"},
            r"data\.test_split is 'test', expected another split than data\.train_",
        ),
    ],
)
def test_impossible_data_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        DataConfig(**values)


def test_default_canvases_hold_every_aspect_ratio_in_whole_cells():
    config = DataConfig()
    assert all(side % 16 == 0 for canvas in config.canvases for side in canvas)
    sides = {"shorter_side": config.shorter_side, "longer_side": config.longer_side}
    for longer in range(100, 1000):
        for size in ((100, longer), (longer, 100)):
            fitted = transforms.resized_size(size, **sides)
            assert transforms.choose_canvas(fitted, config.canvases) is not None


def test_command_line_overrides_nested_fields():
    config = override_config(
        Config(),
        ["--optimizer.learning-rate", "5e-4", "--data.canvases", "1100", "1200"],
        "train.py",
    )
    assert config.optimizer.learning_rate == 5e-4
    assert config.data.canvases == ((1100, 1200),)
    assert config.seed == Config().seed
    assert config.model == ModelConfig()


def test_command_line_takes_canvases_as_a_flat_list_of_sides():
    arguments = ["--data.canvases", "608", "1008", "1008", "608"]
    config = override_config(Config(), arguments, "train.py")
    assert config.data.canvases == ((608, 1008), (1008, 608))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--num-steps 3", (3, None)),
        ("--num_steps=3", (3, None)),
        ("--num-epochs 2", (70_000, 2)),
        ("--num-steps 3 --num-epochs 2", (3, 2)),
        ("--seed 1", (70_000, 40)),
    ],
)
def test_steps_of_the_command_line_replace_the_epochs_of_the_config(
    arguments, expected
):
    config = override_config(Config(num_epochs=40), arguments.split(), "train.py")
    assert (config.num_steps, config.num_epochs) == expected


def test_compute_dtype_of_the_command_line_survives_json(tmp_path):
    arguments = ["--model.compute-dtype", "bfloat16"]
    config = override_config(Config(), arguments, "train.py")
    assert config.model == ModelConfig(compute_dtype="bfloat16")
    save_config(config, tmp_path / "config.json")
    assert read_config(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--nonsense 1", "--nonsense"),
        ("--seed x", "--seed"),
        ("--data.canvases 3", "--data.canvases"),
        ("--data.canvases 608 1008 1008", "--data.canvases"),
        ("--model.activation tanh", "tanh"),
        ("--model.compute-dtype float16", "float16"),
        ("--optimizer.learning-rate -1", "optimizer.learning_rate is -1.0"),
    ],
)
def test_bad_argument_is_one_line_that_names_it(arguments, message):
    with pytest.raises(UserError) as error:
        override_config(Config(), arguments.split(), "train.py")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_help_tells_the_unit_of_a_field(capsys):
    with pytest.raises(SystemExit) as stop:
        override_config(Config(), ["--help"], "train.py")
    assert stop.value.code == 0
    assert "in pixels" in capsys.readouterr().out


def test_every_field_has_a_help_text():
    for field in fields():
        lines = "".join(map(inspect.getsource, field.section.__mro__[:-1]))
        _, _, after = lines.partition(f"\n    {field.path.rpartition('.')[2]}: ")
        assert after.split("\n")[1].startswith('    """'), field.path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimizerConfig(learning_rate=-1.0), "optimizer.learning_rate is -1"),
        (lambda: OptimizerConfig(boundaries=(5, 3)), "optimizer.boundaries is (5, 3)"),
        (lambda: ModelConfig(anchor_scales=()), "model.anchor_scales is ()"),
        (lambda: ModelConfig(dropout=1.0), "model.dropout is 1.0"),
        (lambda: ModelConfig(channel_order="BGR"), "pixel_std is ('BGR', None, None)"),
        (lambda: ModelConfig(frozen_blocks=6), "model.frozen_blocks is 6"),
        (
            lambda: DataConfig(canvases=((600, 900), (990, 990))),
            "data.canvases is ((600, 900), (990, 990))",
        ),
        (lambda: DataConfig(canvases=()), "data.canvases is ()"),
        (lambda: DataConfig(canvases=((0, 9),)), "data.canvases is ((0, 9),)"),
        (lambda: DataConfig(longer_side=500), "data.longer_side is 500"),
        (lambda: DataConfig(flip_probability=2.0), "data.flip_probability is 2"),
        (lambda: DataConfig(scale_range=(2.0, 1.0)), "data.scale_range is (2.0, 1.0)"),
        (lambda: DataConfig(min_crop=0.0), "data.min_crop is 0.0"),
        (lambda: ProposalConfig(iou_threshold=1.0), "proposals.iou_threshold is 1"),
        (lambda: Config(batch_size=0), "batch_size is 0"),
        (lambda: Config(batch_size=4, micro_batches=3), "batch_size is 4"),
        (lambda: Config(num_epochs=0), "num_epochs is 0"),
        (lambda: OptimizerConfig(ema_decay=1.0), "optimizer.ema_decay is 1.0"),
    ],
)
def test_impossible_value_names_field_and_value(make, message):
    with pytest.raises(UserError) as error:
        make()
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (Config, {"num_steps": "4"}, "num_steps is '4', expected int"),
        (Config, {"data": None}, "data is None, expected DataConfig"),
        (Config, {"log_hardest": "no"}, "log_hardest is 'no', expected bool"),
        (DataConfig, {"source": "vok"}, "data.source is 'vok', expected one of voc, "),
        (DataConfig, {"root": 5}, "data.root is 5, expected str"),
        (DataConfig, {"limit": 0.5}, "data.limit is 0.5, expected int | None"),
        (
            DataConfig,
            {"class_names": "abc"},
            "data.class_names is 'abc', expected tuple[str, ...] | None",
        ),
        (
            DataConfig,
            {"canvases": (99, 9)},
            "data.canvases is (99, 9), expected tuple[tuple[int, int], ...]",
        ),
        (
            DataConfig,
            {"scale_range": 1.0},
            "data.scale_range is 1.0, expected tuple[float, float]",
        ),
        (
            ModelConfig,
            {"channel_order": "XYZ"},
            "model.channel_order is 'XYZ', expected one of RGB, BGR | None",
        ),
        (
            ModelConfig,
            {"anchor_scales": 8.0},
            "model.anchor_scales is 8.0, expected tuple[float, ...]",
        ),
    ],
)
def test_a_wrong_type_is_refused_with_the_expected_one(section, values, message):
    with pytest.raises(UserError) as error:
        section(**values)
    assert str(error.value).startswith(message)


def test_lists_are_taken_for_tuples():
    data = DataConfig(canvases=[[608, 1008], [1008, 608]], class_names=["a", "b"])
    assert data.canvases == ((608, 1008), (1008, 608))
    assert data.class_names == ("a", "b")
    hash(data)


def test_home_is_expanded_in_the_run_directory_but_not_in_what_is_stored(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    config = Config(work_dir="~/runs/a", data=DataConfig(root="~/photos"))
    assert config.work_dir == "/home/ada/runs/a"
    assert config.data.root == "~/photos"  # the same on a machine of another home


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sed": 1}, "sed"),
        ({"optimizer": {"lr": 1.0}}, "lr"),
        ({"seed": "1"}, "seed"),
        ({"seed": -1}, "seed is -1, expected at least 0"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"data": {"canvases": [1008, 1008]}}, "data.canvases"),
        ({"data": {"canvases": [[1, 2, 3]]}}, "data.canvases"),
        ({"data": {"canvases": [["608", 1008]]}}, "data.canvases"),
    ],
)
def test_json_with_unknown_field_or_wrong_type_is_refused(values, message, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=message) as error:
        read_config(path)
    assert str(path) in str(error.value)


def test_value_with_a_line_break_is_refused_in_one_line():
    for line_break in ("\n", "\r", "\x85", "\u2028"):
        with pytest.raises(UserError, match="batch_size") as error:
            config_from_dict({"batch_size": f"a{line_break}b"}, where="here")
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("value", [{"a": 1}, {"": None}, "608 800", 608, None])
def test_canvases_that_are_no_list_are_refused_in_one_line(value):
    with pytest.raises(UserError, match=r"^here: "):
        config_from_dict({"data": {"canvases": value}}, where="here")


def test_lists_stand_for_tuples_also_within_them():
    config = config_from_dict(
        {"data": {"canvases": [[608, 1008], [1008, 608]]}}, where="here"
    )
    assert config.data.canvases == ((608, 1008), (1008, 608))


def test_integers_stand_for_floats():
    config = config_from_dict({"optimizer": {"learning_rate": 1}}, where="here")
    assert config.optimizer.learning_rate == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(): return 3", "expected a Config"),
        ("def get_config(", "SyntaxError"),
        ("x = 1", "get_config"),
        ("exit()", "SystemExit"),
        (
            "from frcnn_jax.config import *\n"
            "def get_config(): return OptimizerConfig(lr=1)",
            "lr",
        ),
        (
            "from frcnn_jax.config import *\ndef get_config(): return Config(seed='a')",
            "seed",
        ),
    ],
)
def test_broken_config_file_is_one_line_with_its_path(text, message, tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_config(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_config_file_is_named():
    with pytest.raises(UserError, match=r"nowhere\.py: no such file"):
        load_config("nowhere.py")
