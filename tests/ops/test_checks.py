"""What the public functions refuse, and what they take as if it were a JAX array."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Bool, Float

from frcnn_jax import ops
from frcnn_jax.ops.checks import check_shapes

BOXES = np.array([[0.0, 0, 10, 10], [0, 1, 10, 11]], np.float32)
SCORES = np.array([0.5, 0.25], np.float32)
OPTIONS = {"iou_threshold": 0.5, "max_outputs": 2}


@check_shapes
def pair(
    boxes: Float[Array, "n 4"],
    mask: Bool[Array, " n"] | None = None,
    size: Float[Array, "2"] | tuple[int, int] = (1, 1),
    *,
    option: str = "",
):
    """Returns what it was called with."""
    return boxes, mask, size, option


def test_a_shape_is_refused_with_the_names_and_both_shapes():
    with pytest.raises(ValueError, match=r"^pair: boxes has shape \(2, 3\), expected "):
        pair(jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"^pair: boxes has shape \(4,\), expected "):
        pair(jnp.zeros(4))
    with pytest.raises(
        ValueError, match=r"^pair: mask has shape \(3,\), expected \(n\), n = 2$"
    ):
        pair(BOXES, np.ones(3, bool))
    with pytest.raises(
        ValueError, match=r"^pair: size has shape \(3,\), expected \(2\)"
    ):
        pair(BOXES, size=np.ones(3))


def test_a_wrong_shape_is_refused_while_tracing():
    with pytest.raises(ValueError, match="scores has shape"):
        jax.eval_shape(lambda b, s: ops.nms(b, s, **OPTIONS), BOXES, SCORES[:1])
    with pytest.raises(ValueError, match="boxes has shape"):
        jax.vmap(ops.box_area)(jnp.zeros((2, 5, 3)))


def test_a_field_of_a_named_tuple_is_checked():
    targets = ops.AnchorTargets(jnp.zeros(2, jnp.int32), jnp.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"targets\.labels has shape \(2,\)"):
        ops.rpn_loss(jnp.zeros((3, 2)), jnp.zeros((3, 4)), targets)


def test_what_is_no_array_is_refused():
    with pytest.raises(TypeError, match=r"^pair: boxes is a list, expected an array$"):
        pair([[0.0, 0.0, 1.0, 1.0]])


def test_numpy_arrays_become_those_of_jax_and_the_rest_stays():
    boxes, mask, size, option = pair(BOXES, size=(3, 4), option="x")
    assert isinstance(boxes, jax.Array)
    assert (mask, size, option) == (None, (3, 4), "x")
    for arrays in ((BOXES, SCORES), (jnp.asarray(BOXES), jnp.asarray(SCORES))):
        indices, valid = ops.nms(*arrays, **OPTIONS)
        assert (indices.tolist(), valid.tolist()) == ([0, 0], [True, False])
    assert ops.clip_boxes(BOXES, np.array([5.0, 5.0])).max() == 5.0


def test_a_missing_argument_is_still_pythons_error():
    with pytest.raises(TypeError, match="missing a required argument: 'boxes'"):
        pair()
