"""Parameters apart from the detector's structure: drawn, flat and nested."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from frcnn_jax.models import FasterRCNN
from frcnn_jax.models.parameters import (
    abstract_detector,
    flatten,
    parameter_shapes,
    random_params,
    unflatten,
)
from tests.helpers import tiny


@pytest.fixture(scope="module")
def params():
    return random_params(tiny.MODEL, tiny.NUM_CLASSES, 0)


def test_seed_decides_every_parameter(params):
    again = flatten(random_params(tiny.MODEL, tiny.NUM_CLASSES, 0))
    other = flatten(random_params(tiny.MODEL, tiny.NUM_CLASSES, 1))
    for name, array in flatten(params).items():
        np.testing.assert_array_equal(again[name], array)
        assert (other[name] != array).any() == name.endswith(".kernel")


def test_random_parameters_fit_the_abstract_detector(params):
    graphdef, shapes = abstract_detector(tiny.MODEL, tiny.NUM_CLASSES)
    assert jax.tree.structure(params) == jax.tree.structure(shapes)
    assert parameter_shapes(params) == parameter_shapes(shapes)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    assert isinstance(nnx.merge(graphdef, params), FasterRCNN)


def test_number_of_classes_decides_the_last_layers_only():
    few, many = (
        parameter_shapes(abstract_detector(tiny.MODEL, count)[1]) for count in (2, 5)
    )
    changed = {name for name, shape in few.items() if many[name] != shape}
    layers = ("head.score", "head.delta")
    assert changed == {f"{n}.{kind}" for n in layers for kind in ("kernel", "bias")}
    assert (few["head.score.bias"], many["head.score.bias"]) == ((3,), (6,))


def test_flat_parameters_have_dotted_names_and_lie_on_the_host(params):
    flat = flatten(params)
    assert len(flat) == len(jax.tree.leaves(params))
    kernel = flat["backbone.conv1_1.kernel"]
    assert isinstance(kernel, np.ndarray)
    np.testing.assert_array_equal(kernel, params["backbone"]["conv1_1"]["kernel"])


def test_unflatten_inverts_flatten_bit_for_bit(params):
    again = unflatten(flatten(params))
    assert jax.tree.structure(again) == jax.tree.structure(params)
    for leaf, other in zip(
        jax.tree.leaves(again), jax.tree.leaves(params), strict=True
    ):
        assert isinstance(leaf, jax.Array)
        assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes()


def test_unflatten_takes_some_of_the_parameters():
    nested = unflatten({"backbone.conv1_1.bias": np.ones(8, np.float32)})
    assert list(nested) == ["backbone"]
    np.testing.assert_array_equal(nested["backbone"]["conv1_1"]["bias"], np.ones(8))


def test_names_do_not_depend_on_the_order_of_the_layers(params):
    reversed_arrays = dict(reversed(flatten(params).items()))
    assert flatten(unflatten(reversed_arrays)).keys() == flatten(params).keys()
