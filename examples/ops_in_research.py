"""The functions of frcnn_jax.ops on their own: batched, sharded and differentiated.

    python ops_in_research.py

They need jax, numpy and jaxtyping only, and run on whatever devices there are.
`JAX_NUM_CPU_DEVICES=4 python ops_in_research.py` makes four of a CPU.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from frcnn_jax import ops

NUM_BOXES = 300
MAP_SIZE = (38, 50)  # cells of 16 x 16 pixels
IMAGE_SIZE = (608, 800)

suppress = functools.partial(ops.nms, iou_threshold=0.5, max_outputs=50)


def random_boxes(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draws [N, 4] boxes inside an image, and [N] scores."""
    center_key, size_key, score_key = jax.random.split(key, 3)
    centers = jax.random.uniform(center_key, (NUM_BOXES, 2)) * jnp.array([IMAGE_SIZE])
    sizes = jax.random.uniform(size_key, (NUM_BOXES, 2), minval=30, maxval=300)
    boxes = jnp.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1)
    scores = jax.random.uniform(score_key, (NUM_BOXES,))
    return ops.clip_boxes(boxes, IMAGE_SIZE), scores


# NMS of a batch: every function is for one image, and `vmap` makes the batch.
num_images = 2 * jax.device_count()
keys = jax.random.split(jax.random.key(0), num_images)
boxes, scores = jax.vmap(random_boxes)(keys)
selection = jax.jit(jax.vmap(suppress))(boxes, scores)
print("kept per image:", selection.mask.sum(axis=1))

# The same, each device computing the images that it holds.
mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
split = PartitionSpec("data")
sharded = jax.jit(
    jax.shard_map(
        jax.vmap(suppress), mesh=mesh, in_specs=split, out_specs=split, check_vma=False
    )
)(boxes, scores)
same = all((a == b).all() for a, b in zip(sharded, selection, strict=True))
print(f"on {mesh.size} device(s):", "the same" if same else "different")

# RoIAlign has a gradient for the boxes, too: move one to where its features are most
# like those of another. (RoI max pooling has one for the features only.)
features = jax.random.normal(jax.random.key(1), (*MAP_SIZE, 16))
for _ in range(2):  # smooth, as a network's are
    features = jax.image.resize(features[::2, ::2], features.shape, "bilinear")
target = jnp.array([[96.0, 160.0, 320.0, 480.0]])
wanted = ops.roi_align(features, target)


@jax.jit
@jax.value_and_grad
def mismatch(box: jax.Array) -> jax.Array:
    """How far the pooled features of a box are from the wanted ones."""
    return ((ops.roi_align(features, box) - wanted) ** 2).mean()


box = target + jnp.array([[30.0, -25.0, 20.0, 35.0]])
for step in range(101):
    value, gradient = mismatch(box)
    if step % 25 == 0:
        overlap = ops.box_iou(box, target)[0, 0]
        print(f"step {step}: mismatch {value:.5f}, IoU {overlap:.3f}")
    box -= 1000.0 * gradient

# Losses of single images, and the gradient of each: `vmap` of `grad`.
anchors = ops.grid_anchors(MAP_SIZE, ops.base_anchors())
deltas = 0.1 * jax.random.normal(jax.random.key(2), (num_images, len(anchors), 4))
logits = jax.random.normal(jax.random.key(3), (num_images, len(anchors), 2))
is_real = (
    jnp.arange(8)[None] < jnp.arange(1, num_images + 1)[:, None]
)  # 1, 2, .. objects


def rpn_loss(deltas, logits, key, gt_boxes, gt_mask):
    """The region proposal network's loss of one image."""
    targets = ops.anchor_targets(key, anchors, gt_boxes, gt_mask, IMAGE_SIZE)
    return sum(ops.rpn_loss(logits, deltas, targets))


losses, gradients = jax.jit(jax.vmap(jax.value_and_grad(rpn_loss)))(
    deltas, logits, keys, boxes[:, :8], is_real
)
norms = jnp.sqrt((gradients**2).sum(axis=(1, 2)))
for index, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
    print(f"image {index}: loss {loss:.3f}, norm of its gradient {norm:.4f}")
