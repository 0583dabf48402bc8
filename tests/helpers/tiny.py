"""A small detector on small drawn pictures, shared by many tests."""

import dataclasses

import jax
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict

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
from frcnn_jax.data import loader
from frcnn_jax.data.records import Batch
from frcnn_jax.data.sources import open_source
from frcnn_jax.models import VGG16, pretrained
from frcnn_jax.training import checkpoint, optimizer
from frcnn_jax.training.step import abstract_detector

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

PROGRESS = checkpoint.Progress(
    data={"next_batch": 7, "fingerprint": "f"}, log={"window": [{"loss": 0.1 + 0.2}]}
)


def make_optimizer(config: OptimizerConfig, frozen_blocks: int = 0):
    """The optimiser of a config for batches of one."""
    return optimizer.make_optimizer(
        config, optimizer.make_schedule(config, 1), frozen_blocks
    )


def save_checkpoint(folder, state, preprocessing) -> None:
    """Writes a checkpoint of a state that no run has made."""
    with checkpoint.open_checkpoints(folder) as checkpoints:
        checkpoint.save(checkpoints, state, preprocessing, PROGRESS, metrics={})
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


def by_name(params) -> dict[str, np.ndarray]:
    """Nested parameters under names such as `backbone.conv1_1.kernel`."""
    flat = flatten_dict(params, sep=".")
    return {name: np.asarray(leaf) for name, leaf in flat.items()}


def parameter_shapes(num_classes: int) -> dict[str, tuple[int, ...]]:
    """Of the small detector, by name."""
    _, params = abstract_detector(MODEL, num_classes)
    return pretrained.parameter_shapes(params)


def first_batch(batch_size: int = 2, canvas: tuple[int, int] = (64, 64)) -> Batch:
    """The first images of the drawn training set."""
    data = dataclasses.replace(DATA, canvases=(canvas,))
    source = open_source(data, "train")
    return next(loader.evaluation_batches(source, data, batch_size=batch_size))


def take(batch: Batch, index: int) -> Batch:
    """One image of a batch, as a batch of one."""
    return Batch(*(np.asarray(field)[index : index + 1] for field in batch))
