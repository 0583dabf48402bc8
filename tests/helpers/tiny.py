"""A small detector on small drawn pictures, shared by many tests."""

import dataclasses

import jax
import numpy as np
from flax import nnx

from frcnn_jax import ops
from frcnn_jax.config import (
    AnchorTargetConfig,
    Config,
    DataConfig,
    DetectionConfig,
    ModelConfig,
    OptimizerConfig,
    ProposalConfig,
    ProposalTargetConfig,
)
from frcnn_jax.config.detector_spec import make_spec
from frcnn_jax.data.images import Picture
from frcnn_jax.data.loader import evaluation_batches
from frcnn_jax.data.records import Batch
from frcnn_jax.data.sources import open_source
from frcnn_jax.data.sources.shapes import CLASS_NAMES
from frcnn_jax.detections import Detections
from frcnn_jax.detector import Detector
from frcnn_jax.models import VGG16, FasterRCNN, Losses, SamplingStats
from frcnn_jax.models.parameters import abstract_detector, parameter_shapes
from frcnn_jax.training import checkpoint, optimizer

NUM_CLASSES = 6

MODEL = ModelConfig(
    width=0.125,
    frozen_blocks=0,
    rpn_channels=32,
    head_channels=32,
    anchor_scales=(1.0, 2.0),
    pooling="align",
    proposals=ProposalConfig(
        pre_nms_train=60,
        post_nms_train=20,
        pre_nms_test=60,
        post_nms_test=10,
        min_size=4.0,
    ),
    anchor_targets=AnchorTargetConfig(num_samples=16),
    proposal_targets=ProposalTargetConfig(num_samples=8),
    detection=DetectionConfig(max_detections=5),
)

DATA = DataConfig(
    source="shapes",
    train_split="train",
    test_split="test",
    num_train_images=10,
    num_test_images=9,
    shapes_size=(56, 64),
    shorter_side=56,
    longer_side=64,
    canvases=((64, 64),),
    max_objects=6,
)

CONFIG = Config(
    num_steps=6,
    batch_size=2,
    log_every=2,
    checkpoint_every=4,
    data=DATA,
    model=MODEL,
    optimizer=OptimizerConfig(name="adam", warmup_steps=2, clip_norm=10.0),
)

SPEC = make_spec(MODEL, DATA, CLASS_NAMES)

PROGRESS = checkpoint.Progress(
    data={"fingerprint": "f"}, log={"window": [{"loss": 0.1 + 0.2}]}
)


def make_optimizer(config: OptimizerConfig, frozen_blocks: int = 0):
    """The optimizer of a config for batches of one."""
    return optimizer.make_optimizer(
        config, optimizer.make_schedule(config, 1), frozen_blocks
    )


def save_checkpoint(folder, state, spec=SPEC) -> None:
    """Writes a checkpoint of a state that no run has made."""
    with checkpoint.open_checkpoints(folder) as checkpoints:
        checkpoint.save(checkpoints, state, spec, PROGRESS, metrics={})
        checkpoint.wait(checkpoints)


def make_backbone(seed: int, frozen_blocks: int = 0) -> VGG16:
    """VGG16 with an eighth of its channels."""

    def make(key):
        rngs = nnx.Rngs(params=key)
        return VGG16(width=0.125, frozen_blocks=frozen_blocks, rngs=rngs)

    key = jax.random.key(seed)
    graphdef, _ = nnx.split(nnx.eval_shape(make, key))
    # One compilation; made eagerly, each of the 13 layers takes its own.
    params = jax.jit(lambda key: nnx.to_pure_dict(nnx.state(make(key))))(key)
    return nnx.merge(graphdef, params)


def shapes_by_name(num_classes: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the small detector's parameters."""
    return parameter_shapes(abstract_detector(MODEL, num_classes)[1])


def losses(model: FasterRCNN, keys, batch: Batch) -> tuple[Losses, SamplingStats]:
    """Computes the losses of a batch, given a key for each image."""
    outputs = model(batch.images, batch.image_sizes, batch.scales)
    return model.losses(keys, outputs, batch.boxes, batch.labels, batch.box_mask)


def detect(model: FasterRCNN, batch: Batch) -> ops.Detections:
    """Detects objects in a batch, in pixels of the resized images."""
    return model.detect(model(batch.images, batch.image_sizes, batch.scales))


def detect_all(detector: Detector, picture: Picture) -> Detections:
    """Detects what an evaluation reports, whatever the default threshold."""
    options = detector.spec.model.detection
    return detector(
        picture,
        score_threshold=options.score_threshold,
        max_detections=options.max_detections,
    )


def first_batch(batch_size: int = 2, canvas: tuple[int, int] = (64, 64)) -> Batch:
    """The first images of the drawn training set."""
    data = dataclasses.replace(DATA, canvases=(canvas,))
    source = open_source(data, "train")
    return next(evaluation_batches(source, data, batch_size=batch_size))


def take(batch: Batch, index: int) -> Batch:
    """One image of a batch, as a batch of one."""
    return Batch(*(np.asarray(field)[index : index + 1] for field in batch))
