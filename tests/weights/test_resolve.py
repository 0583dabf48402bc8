"""What weights presuppose, beside what the config says."""

import dataclasses

import pytest

from frcnn_jax.config import LossConfig, ModelConfig
from frcnn_jax.config.preprocessing import PREPROCESSINGS
from frcnn_jax.errors import UserError
from frcnn_jax.weights.record import resolve_preprocessing
from tests.helpers import foreign, tiny

COLORS = dataclasses.asdict(PREPROCESSINGS["caffe"])


@pytest.fixture
def weights(read):
    return read(foreign.chenyuntc(), preprocessing="caffe", anchor_scales=(1.0, 2.0))


def test_fields_that_are_not_given_come_from_the_weights(weights):
    config = resolve_preprocessing(tiny.MODEL, weights)
    assert config.preprocessing == PREPROCESSINGS["caffe"]
    assert config == dataclasses.replace(tiny.MODEL, **COLORS)


def test_the_same_may_be_said_twice(weights):
    config = dataclasses.replace(tiny.MODEL, **COLORS)
    assert resolve_preprocessing(config, weights) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channel_order", "RGB"),
        ("pixel_mean", (1.0, 2.0, 3.0)),
        ("pixel_std", (2.0, 1.0, 1.0)),
        ("anchor_scales", (1.0, 3.0)),
        ("anchor_ratios", (1.0, 2.0, 0.5)),
        ("losses", LossConfig(delta_std=(1.0, 1.0, 1.0, 1.0))),
    ],
)
def test_contradiction_is_refused_with_the_field(weights, field, value):
    config = dataclasses.replace(tiny.MODEL, **COLORS | {field: value})
    with pytest.raises(UserError, match=rf"model\.{field}\S* is "):
        resolve_preprocessing(config, weights)


def test_unknown_preprocessing_needs_all_three_fields(read):
    weights = read(foreign.npz())
    with pytest.raises(UserError, match=r"does not say .* model\.pixel_std$"):
        resolve_preprocessing(ModelConfig(), weights)
    assert resolve_preprocessing(ModelConfig(**COLORS), weights) == ModelConfig(
        **COLORS
    )
