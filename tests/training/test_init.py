"""Initial parameters of a run."""

import dataclasses

import numpy as np
import pytest

from frcnn_jax.config.detector_spec import make_spec
from frcnn_jax.config.preprocessing import PREPROCESSINGS
from frcnn_jax.data.sources import open_source
from frcnn_jax.data.sources.shapes import CLASS_NAMES
from frcnn_jax.errors import UserError
from frcnn_jax.evaluation.evaluate import evaluate_pretrained
from frcnn_jax.models.parameters import flatten, random_params
from frcnn_jax.training import train
from frcnn_jax.training.init import init_params
from frcnn_jax.weights.exporting import save_weights
from frcnn_jax.weights.record import OWN_FORMAT, Weights
from tests.helpers import tiny
from tests.helpers.containers import assert_same

CAFFE = PREPROCESSINGS["caffe"]


@pytest.fixture(scope="module")
def source():
    return open_source(tiny.DATA, "train")


@pytest.fixture(scope="module")
def detector() -> dict[str, np.ndarray]:
    """Parameters of another seed than the config's."""
    return flatten(random_params(tiny.MODEL, tiny.NUM_CLASSES, 1))


@pytest.fixture
def config_with(tmp_path):
    """A config that starts from a file of these arrays, made for Caffe's colors."""

    def config_with(arrays, **fields):
        is_detector = "rpn.conv.kernel" in arrays
        names = CLASS_NAMES[: len(arrays["head.score.bias"]) - 1] if is_detector else ()
        model = dataclasses.replace(tiny.MODEL, **dataclasses.asdict(CAFFE))
        spec = make_spec(model, tiny.DATA, names) if is_detector else None
        weights = Weights(
            source="test",
            layout=OWN_FORMAT,
            arrays=arrays,
            preprocessing=CAFFE,
            spec=spec,
        )
        path = tmp_path / "weights.safetensors"
        save_weights(weights, path)
        model = dataclasses.replace(tiny.MODEL, pretrained=str(path), **fields)
        work_dir = str(tmp_path / "run")
        return dataclasses.replace(tiny.CONFIG, model=model, work_dir=work_dir)

    return config_with


def test_without_weights_the_seed_decides(source):
    config, params = init_params(tiny.CONFIG, source)
    assert config == tiny.CONFIG
    expected = random_params(tiny.MODEL, tiny.NUM_CLASSES, tiny.CONFIG.seed)
    assert_same(flatten(params), flatten(expected))


def test_whole_detector_is_used_unchanged(config_with, detector, source, caplog):
    caplog.set_level("INFO")
    config, params = init_params(config_with(detector), source)
    assert_same(flatten(params), detector)
    assert config.model.preprocessing == CAFFE
    assert "missing, random: nothing" in caplog.text


def test_missing_layers_start_from_the_seed(config_with, detector, source):
    names = [name for name in detector if name.startswith("backbone.")]
    arrays = {name: detector[name] for name in names}
    _, params = init_params(config_with(arrays), source)
    random = random_params(tiny.MODEL, tiny.NUM_CLASSES, tiny.CONFIG.seed)
    assert_same(flatten(params), flatten(random) | arrays)


def test_other_classes_are_refused_only_where_all_is_needed(
    config_with, detector, source
):
    for name in ("head.score", "head.delta"):
        for kind in ("kernel", "bias"):
            array = detector[f"{name}.{kind}"]
            detector = detector | {f"{name}.{kind}": array[..., :4]}
    config = config_with(detector)
    with pytest.raises(UserError, match=r"no head\.delta\.bias for 6 classes"):
        evaluate_pretrained(config)
    _, params = init_params(config, source)
    np.testing.assert_array_equal(
        params["rpn"]["score"]["kernel"], detector["rpn.score.kernel"]
    )
    assert params["head"]["score"]["bias"].shape == (7,)


def test_as_many_classes_of_other_names_are_other_classes(config_with, detector):
    config = config_with(detector)
    names = (*CLASS_NAMES[1:], CLASS_NAMES[0])
    data = dataclasses.replace(config.data, class_names=names)
    config = dataclasses.replace(config, data=data)
    with pytest.raises(UserError, match=r"its classes are .*, those of the data set"):
        evaluate_pretrained(config)
    _, params = init_params(config, open_source(data, "train"))
    seeded = random_params(tiny.MODEL, tiny.NUM_CLASSES, config.seed)
    assert_same(flatten(params["head"]["score"]), flatten(seeded["head"]["score"]))
    np.testing.assert_array_equal(
        params["head"]["fc7"]["kernel"], detector["head.fc7.kernel"]
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channel_order", "RGB"),
        ("pixel_mean", (1.0, 2.0, 3.0)),
        ("anchor_ratios", (1.0,)),
    ],
)
def test_contradicting_config_leaves_no_run_directory(
    field, value, config_with, detector, tmp_path
):
    fields = dataclasses.asdict(CAFFE) | {field: value}
    config = config_with(detector, **fields)
    with pytest.raises(UserError, match=f"model.{field} is "):
        train.train(config)
    assert not (tmp_path / "run").exists()


def frozen_warning(caplog) -> str:
    """What is said about random layers that do not learn."""
    records = [r for r in caplog.records if r.levelname == "WARNING"]
    messages = [record.getMessage() for record in records]
    assert not any("\n" in message for message in messages)
    return "".join(messages)


def test_frozen_random_layers_are_warned_of_in_one_line(source, caplog):
    model = dataclasses.replace(tiny.MODEL, frozen_blocks=2)
    _, params = init_params(dataclasses.replace(tiny.CONFIG, model=model), source)
    assert frozen_warning(caplog) == (
        "WARNING: model.frozen_blocks is 2, but conv1_1, conv1_2, conv2_1, conv2_2 "
        "have random weights, and will not learn: give --model.pretrained, or "
        "--model.frozen-blocks 0"
    )
    expected = random_params(tiny.MODEL, tiny.NUM_CLASSES, tiny.CONFIG.seed)
    assert_same(flatten(params), flatten(expected))


@pytest.mark.parametrize(
    ("num_blocks", "names"),
    [(1, ""), (2, ""), (3, "conv3_2, conv3_3 "), (0, "")],
)
def test_only_frozen_layers_that_no_weights_cover_are_warned_of(
    num_blocks, names, config_with, detector, source, caplog
):
    covered = ("conv1_", "conv2_", "conv3_1")
    arrays = {
        name: array
        for name, array in detector.items()
        if name.startswith(tuple(f"backbone.{layer}" for layer in covered))
    }
    init_params(config_with(arrays, frozen_blocks=num_blocks), source)
    warning = frozen_warning(caplog)
    assert f"but {names}have random" in warning if names else warning == ""
