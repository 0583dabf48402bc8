"""RoI pooling and aligning, against what torchvision computed.

`tests/golden/make_roi.py` made the file, and says what is in it.
"""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from frcnn_jax import ops

FRAME = (19, 13)

with np.load(Path(__file__).parents[1] / "golden" / "roi.npz") as file:
    GOLDEN = dict(file)
CASES = json.loads(str(GOLDEN["cases"]))


@functools.partial(jax.jit, static_argnames=("function", "options"))
def with_gradient(function, options, features, rois, cotangent, feature_size):
    pool = functools.partial(
        getattr(ops, function), rois=rois, feature_size=feature_size, **dict(options)
    )
    result, pull_back = jax.vjp(pool, features)
    return result, pull_back(cotangent)[0]


def compute(name):
    """Our (result, gradient) of a case, and torchvision's.

    The maps stand in a corner of one frame, for which everything is compiled once.
    """
    case = CASES[name]
    options = case["options"] | {"output_size": tuple(case["options"]["output_size"])}
    features = GOLDEN[f"features/{case['features']}"]
    expected = GOLDEN[f"result/{name}"], GOLDEN[f"gradient/{name}"]
    cotangent = np.resize(GOLDEN["cotangent"], expected[0].shape)
    rois, size = GOLDEN[f"rois/{case['rois']}"], features.shape[:2]
    missing = [
        (0, max(frame - cells, 0)) for frame, cells in zip(FRAME, size, strict=True)
    ]
    features = np.pad(features, (*missing, (0, 0)), constant_values=9.0)
    result, gradient = with_gradient(
        case["function"],
        tuple(options.items()),
        features,
        rois,
        cotangent,
        np.array(size),
    )
    gradient = np.asarray(gradient)
    assert not gradient[size[0] :].any()
    assert not gradient[:, size[1] :].any()
    return (np.asarray(result), gradient[: size[0], : size[1]]), expected


def names(function):
    return [name for name, case in CASES.items() if case["function"] == function]


@pytest.mark.parametrize("name", names("roi_pool"))
def test_roi_pool_and_its_gradient_equal_torchvision(name):
    # The cotangent is made of whole numbers, so that their sums are exact; where cells
    # tie, it must have gone to the same one of them.
    (result, gradient), (expected, expected_gradient) = compute(name)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(gradient, expected_gradient)


@pytest.mark.parametrize("name", names("roi_align"))
def test_roi_align_and_its_gradient_equal_torchvision(name):
    (result, gradient), (expected, expected_gradient) = compute(name)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)
    # The gradient is a sum over all RoIs and bins, up to some hundreds.
    scale = np.abs(expected_gradient).max()
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-5 * scale)
