"""The training step to time, and the cases of `benchmarks.ops` about it."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from benchmarks.timing import Case
from frcnn_jax import distributed
from frcnn_jax.config import ModelConfig, OptimizerConfig
from frcnn_jax.data.records import Batch, empty_batch
from frcnn_jax.models.faster_rcnn import DenseOutputs, FasterRCNN
from frcnn_jax.models.parameters import Params, abstract_detector, random_params
from frcnn_jax.models.vgg16 import VGG16
from frcnn_jax.training.optimizer import make_optimizer, make_schedule
from frcnn_jax.training.step import TrainState, init_state, make_train_step

HEIGHT, WIDTH = 608, 800
NUM_CLASSES, NUM_BOXES, MAX_BOXES = 20, 20, 64
STEP = "training step"
NO_LAYERS = "what is neither convolution nor fc"
MAX_SHARE = 0.06  # of the latter in the former
# So small a rate that the steps of a benchmark, however many, do the same work.
OPTIMIZER = OptimizerConfig(learning_rate=1e-9)


def make_step(
    model: ModelConfig, mesh: Mesh
) -> tuple[jax.stages.Wrapped, Callable[[Params], TrainState]]:
    """Returns the training step, and a function from parameters to the first state."""
    graphdef, _ = abstract_detector(model, NUM_CLASSES)
    schedule = make_schedule(OPTIMIZER, batch_size=1)
    optimizer = make_optimizer(OPTIMIZER, schedule, model.frozen_blocks)

    def init(params: Params) -> TrainState:
        return init_state(params, optimizer, 0, has_ema=False)

    return make_train_step(graphdef, optimizer, mesh), init


def make_batch(
    canvas: tuple[int, int], batch_size: int, num_boxes: int = NUM_BOXES
) -> Batch:
    """Draws images that fill the canvas, each with this many objects."""
    rng = np.random.default_rng(0)
    batch = empty_batch(batch_size, canvas, MAX_BOXES)
    corners = np.sort(rng.uniform(0.0, 1.0, (batch_size, MAX_BOXES, 2, 2)), axis=2)
    batch.boxes[:] = (corners * canvas).reshape(batch_size, MAX_BOXES, 4)
    batch.labels[:] = rng.integers(0, NUM_CLASSES, batch.labels.shape)
    batch.box_mask[:, :num_boxes] = True
    batch.boxes[~batch.box_mask] = 0.0
    batch.images[:] = rng.integers(0, 256, batch.images.shape, np.uint8)
    return batch


def step_cases() -> Iterator[Case]:
    """The whole step of the VOC recipe, then what is neither convolution nor fc."""
    batch = make_batch((HEIGHT, WIDTH), 1)
    size = f"{HEIGHT}x{WIDTH}"
    params = random_params(ModelConfig(), NUM_CLASSES, 0)
    mesh = distributed.make_mesh(1)
    train_step, init = make_step(ModelConfig(), mesh)
    state = distributed.replicate(init(params), mesh)
    yield Case(
        STEP,
        size,
        train_step.__wrapped__,  # without donation: it runs on the same state again
        (state, distributed.shard_batch(batch, mesh)),
    )
    yield no_layers_case(batch)


def no_layers_case(batch: Batch) -> Case:
    """The losses and their gradients, given what the layers would have computed."""
    rng = np.random.default_rng(0)
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
    return Case(
        NO_LAYERS,
        f"{HEIGHT}x{WIDTH}",
        _without_layers,
        (inputs, jax.random.split(jax.random.key(0), 1), batch),
        goal=f"<= {MAX_SHARE:.0%} of the step",
    )


def vgg16_cases(dtype: str) -> Iterator[Case]:
    from benchmarks import peers  # which imports torch: seconds

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
        min_ratio=0.95,
    )


def _without_layers(inputs, keys, batch: Batch):
    def loss(inputs):
        detector = FasterRCNN(ModelConfig(width=1 / 64), NUM_CLASSES, rngs=nnx.Rngs(0))
        outputs = DenseOutputs(
            inputs["features"],
            jnp.array([[HEIGHT // 16, WIDTH // 16]]),
            *inputs["rpn"],
            batch.image_sizes,
            batch.scales,
        )

        def head(pooled, keys):  # sums, so that a gradient flows back through the pool
            logits, deltas = inputs["head"]
            return logits + pooled.sum(axis=(1, 2, 3))[:, None], deltas

        detector.head = head
        losses, stats = detector.losses(
            keys, outputs, batch.boxes, batch.labels, batch.box_mask
        )
        return losses.total.mean(), (losses, stats)

    return jax.value_and_grad(loss, has_aux=True)(inputs)
