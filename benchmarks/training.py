"""Cases of `benchmarks.ops` about the training step and its backbone."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks import peers
from benchmarks.timing import Case
from frcnn_jax import distributed
from frcnn_jax.config import ModelConfig, OptimizerConfig
from frcnn_jax.data.records import Batch
from frcnn_jax.models.faster_rcnn import DenseOutputs, FasterRCNN
from frcnn_jax.models.parameters import abstract_detector, random_params
from frcnn_jax.models.vgg16 import VGG16
from frcnn_jax.training.optimizer import make_optimizer, make_schedule
from frcnn_jax.training.step import init_state, make_train_step

HEIGHT, WIDTH = 608, 800
NUM_CLASSES, NUM_BOXES = 20, 20
STEP = "training step"
NO_LAYERS = "what is neither convolution nor fc"


def step_cases() -> Iterator[Case]:
    """The whole step of the VOC recipe, then what is neither convolution nor fc."""
    rng = np.random.default_rng(0)
    batch = _batch(rng)
    size = f"{HEIGHT}x{WIDTH}"

    graphdef, _ = abstract_detector(ModelConfig(), NUM_CLASSES)
    params = random_params(ModelConfig(), NUM_CLASSES, 0)
    schedule = make_schedule(OptimizerConfig(), batch_size=1)
    optimizer = make_optimizer(OptimizerConfig(), schedule, ModelConfig().frozen_blocks)
    mesh = distributed.make_mesh()
    state = distributed.replicate(init_state(params, optimizer, 0, has_ema=False), mesh)
    train_step = make_train_step(graphdef, optimizer, mesh)
    yield Case(
        STEP,
        size,
        train_step.__wrapped__,  # without donation: it runs on the same state again
        (state, distributed.shard_batch(batch, mesh)),
    )

    num_rois = ModelConfig().proposal_targets.num_samples
    cells = (HEIGHT // 16, WIDTH // 16)
    inputs = {
        "features": np.maximum(rng.normal(size=(1, *cells, 512)), 0.0),
        "rpn": (
            rng.normal(size=(1, cells[0] * cells[1] * 9, 2)),
            rng.normal(0.0, 0.1, (1, cells[0] * cells[1] * 9, 4)),
        ),
        "head": (
            rng.normal(size=(num_rois, NUM_CLASSES + 1)),
            rng.normal(0.0, 0.1, (num_rois, NUM_CLASSES + 1, 4)),
        ),
    }
    inputs = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), inputs)
    yield Case(
        NO_LAYERS,
        size,
        _without_layers,
        (inputs, jax.random.split(jax.random.key(0), 1), batch),
        target="<= 6 % of the step",
    )


def vgg16_cases(dtype: str) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(1, HEIGHT, WIDTH, 3)), dtype)
    cotangent = rng.normal(size=(1, HEIGHT // 16, WIDTH // 16, 512))
    cotangent = jnp.asarray(cotangent, dtype)
    sizes = np.array([[HEIGHT, WIDTH]], np.int32)
    model = VGG16(frozen_blocks=2, compute_dtype=dtype, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model)

    def forward_backward(params, images, cotangent):
        features, pull_back = jax.vjp(
            lambda params: nnx.merge(graphdef, params)(images, sizes)[0], params
        )
        return features, pull_back(cotangent)

    yield Case(
        "VGG16 forward + backward, blocks 1-2 frozen",
        f"{HEIGHT}x{WIDTH}, batch 1",
        forward_backward,
        (params, images, cotangent),
        peers.vgg16(images, cotangent, frozen_blocks=2),
        ">= 0.95",
    )


def _without_layers(inputs, keys, batch: Batch):
    """The losses and their gradients, given what the layers would have computed."""

    def loss(inputs):
        detector = FasterRCNN(ModelConfig(width=1 / 64), NUM_CLASSES, rngs=nnx.Rngs(0))
        outputs = DenseOutputs(
            inputs["features"],
            jnp.array([[HEIGHT // 16, WIDTH // 16]]),
            *inputs["rpn"],
            batch.image_sizes,
            batch.scales,
        )

        def head(pooled, key):  # sums, so that a gradient flows back through the pool
            logits, deltas = inputs["head"]
            return logits + pooled.sum(axis=(1, 2, 3))[:, None], deltas

        detector.head = head
        losses, stats = detector.losses(
            keys, outputs, batch.boxes, batch.labels, batch.box_mask
        )
        return losses.total.mean(), (losses, stats)

    return jax.value_and_grad(loss, has_aux=True)(inputs)


def _batch(rng: np.random.Generator) -> Batch:
    corners = np.sort(rng.uniform(0.0, 1.0, (1, NUM_BOXES, 2, 2)), axis=2)
    boxes = (corners * [HEIGHT, WIDTH]).reshape(1, NUM_BOXES, 4)
    return Batch(
        images=rng.integers(0, 256, (1, HEIGHT, WIDTH, 3)).astype(np.uint8),
        image_sizes=np.array([[HEIGHT, WIDTH]], np.float32),
        scales=np.ones((1, 2), np.float32),
        boxes=boxes.astype(np.float32),
        labels=rng.integers(0, NUM_CLASSES, (1, NUM_BOXES)).astype(np.int32),
        box_mask=np.ones((1, NUM_BOXES), bool),
        indices=np.zeros(1, np.int32),
        image_mask=np.ones(1, bool),
    )
