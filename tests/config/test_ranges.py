"""Ranges of the config's numbers: each is a meaning, or one line that refuses it."""

import math

import pytest

from frcnn_jax import cli
from frcnn_jax.config import (
    Config,
    DataConfig,
    DetectorSpec,
    DistributedConfig,
    ModelConfig,
    OptimizerConfig,
    ProposalTargetConfig,
)
from frcnn_jax.config.loading import config_from_dict, read_config, save_config
from frcnn_jax.config.ranges import Range
from frcnn_jax.errors import UserError
from frcnn_jax.training import train
from tests.helpers import fields, tiny

NUMBERS = [field for field in fields.fields() if field.is_number]
USUAL = [0, 0.0, 1, 0.5, 1e-30, 16, 1000, 2**31, 2**32, 2**63]
NEVER = [-(10**7), -1e30, 1e30, 10**30, math.nan, math.inf, -math.inf, True]

every_number = pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.path)


def like(default, value):
    """Puts a value in place of every number of a field's default."""
    if isinstance(default, tuple):
        return tuple(like(item, value) for item in default) or (value,)
    return value


def build(field: fields.Field, value):
    """Makes a config as from JSON; returns it, or the error."""
    try:
        return config_from_dict(fields.nested({field.path: value}), where="here")
    except UserError as error:
        return error


@every_number
def test_every_number_has_a_range_that_its_default_is_in(field):
    limits = field.section.ranges[field.path.rpartition(".")[2]]
    assert field.default is None or field.default in limits
    assert math.isfinite(limits.low)
    assert math.isfinite(limits.high)


@every_number
def test_number_means_something_or_is_refused_by_name(field, tmp_path):
    for value in [*USUAL, *NEVER]:
        config = build(field, like(field.default, value))
        if isinstance(config, UserError):
            assert field.path.rpartition(".")[2] in str(config)
            assert "\n" not in str(config)
        else:
            save_config(config, tmp_path / "config.json")
            assert read_config(tmp_path / "config.json") == config


@every_number
def test_number_that_no_run_can_use_is_refused(field):
    for value in NEVER:
        error = build(field, like(field.default, value))
        assert isinstance(error, UserError), value
        assert field.path in str(error)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Config(seed=-1), "seed is -1, expected at least 0, at most 4,29"),
        (lambda: Config(num_epochs=math.inf), "num_epochs is inf"),
        (lambda: OptimizerConfig(boundaries=(0, 5)), "boundaries is (0, 5), expected"),
        (lambda: OptimizerConfig(boundaries=(3, math.nan)), "boundaries is (3, nan)"),
        (lambda: DataConfig(canvases=((608, 8),)), "canvases is ((608, 8),), expected"),
        (lambda: ModelConfig(dropout=1.0), "expected at least 0, below 1"),
        (
            lambda: ProposalTargetConfig(negative_iou_low=0.6),
            "negative_iou_high is 0.5, expected at least negative_iou_low, 0.6",
        ),
        (
            lambda: DistributedConfig(num_processes=2, process_id=2),
            "process_id is 2, expected below num_processes, 2",
        ),
        (lambda: DataConfig(class_names=()), "data.class_names is ()"),
        (lambda: DataConfig(class_names=("a", "a")), "data.class_names is ('a', 'a')"),
        (
            lambda: ModelConfig(
                channel_order="RGB", pixel_mean=(math.nan,) * 3, pixel_std=(1.0,) * 3
            ),
            "model.pixel_mean is (nan, nan, nan)",
        ),
    ],
)
def test_refusal_says_what_was_expected(make, message):
    with pytest.raises(UserError) as error:
        make()
    assert message in str(error.value)


def test_ends_of_a_range_belong_to_it_unless_they_are_excluded():
    assert all(value in Range(0, 1) for value in (0, 0.5, 1, (0, (1,)), ()))
    half_open = Range(0, 1, above_low=True, below_high=True)
    assert 0.5 in half_open
    assert not any(value in half_open for value in (0, 1, (0.5, 1), "x", None))


def test_resizing_of_a_stored_detector_is_checked_too():
    values = tiny.SPEC.to_dict()
    values["resizing"]["canvases"] = [[64, 8]]
    with pytest.raises(UserError, match=r"^file: resizing\.canvases is \(\(64, 8\),\)"):
        DetectorSpec.from_dict(values, where="file")


@pytest.mark.parametrize(
    ("num_epochs", "num_steps"), [(1e-9, 1), (2, 200), (1e9, None)]
)
def test_epochs_become_steps_that_can_be_counted(num_epochs, num_steps):
    config = Config(num_epochs=num_epochs)
    if num_steps is None:
        with pytest.raises(UserError, match="num_steps is 100000000000, expected"):
            config.in_steps(100)
    else:
        assert config.in_steps(100).num_steps == num_steps


def test_drop_within_the_first_step_comes_after_it():
    optimizer = OptimizerConfig(boundaries=(1e-9, 2.5), boundary_unit="epochs")
    assert Config(optimizer=optimizer).in_steps(100).optimizer.boundaries == (1, 250)


def test_deeply_nested_json_is_one_line(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"config\.json: "):
        read_config(path)


@pytest.mark.parametrize(
    "flags",
    [
        "--seed -1",
        "--seed 18446744073709551616",
        "--num-epochs inf",
        "--num-epochs nan",
        "--optimizer.boundaries 0",
        "--optimizer.boundaries -5 5",
        "--optimizer.learning-rate nan",
        "--optimizer.weight-decay inf",
        "--num-steps 1e30",
        "--data.max-objects 1000000000000000000000000000000",
        "--data.num-workers 1000000",
        "--data.canvases 96 8",
        "--model.width 1e+30",
        "--model.anchor-scales inf",
    ],
)
def test_command_refuses_a_number_in_one_line_and_leaves_no_run(
    flags, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(cli, "_start", lambda: None)
    monkeypatch.setattr(train, "train", lambda config: pytest.fail("it started"))
    config = tmp_path / "config.py"
    config.write_text(
        "from tests.helpers import tiny\nget_config = lambda: tiny.CONFIG"
    )
    arguments = ["--config", str(config), "--work-dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match="2"):
        cli.train([*arguments, *flags.split()])
    (line,) = capsys.readouterr().err.splitlines()
    flag, value = flags.split()[:2]
    name = flag.removeprefix("--").replace("-", "_")
    assert name in line or flag in line
    assert value in line
    assert not (tmp_path / "run").exists()
