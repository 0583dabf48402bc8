"""Our side of the comparison: what every stage computes for one image.

Arrays that come from a canvas larger than the image are cut to the image, and maps and
parameters laid out as the reference has them.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from jax import Array

from frcnn_jax import ops
from frcnn_jax.models import Losses
from frcnn_jax.models.vgg16 import BLOCKS, downsample, zero_outside
from frcnn_jax.training.step import init_detector, losses_of
from tests.parity.reference_layers import CONVOLUTIONS

NUM_CLASSES = 20


class Stages(NamedTuple):
    """The stages of `FasterRCNN.losses`, in their order; arrays of one image."""

    activations: dict[str, Array]  # [H, W, C] or [R, C], after every ReLU
    anchors: Array  # [N, 4]
    logits: Array  # [N, 2]
    deltas: Array  # [N, 4]
    anchor_targets: ops.AnchorTargets
    boxes: Array  # [N, 4] decoded and clipped
    objectness: Array  # [N] what ranks the boxes
    proposals: ops.Proposals
    proposal_targets: ops.ProposalTargets
    pooled: Array  # [R, 7, 7, C]
    roi_logits: Array  # [R, L + 1]
    roi_deltas: Array  # [R, L + 1, 4]


def make_detector(config):
    """A detector's structure and parameters; biases, 0 at first, take part."""
    graphdef, params = init_detector(config, NUM_CLASSES, seed=0)
    rng = np.random.default_rng(0)

    def draw(path, parameter):
        if path[-1].key == "kernel":
            return parameter
        return jnp.asarray(rng.normal(0.0, 0.1, parameter.shape), jnp.float32)

    return graphdef, jax.tree_util.tree_map_with_path(draw, params)


def run(graphdef, params, batch) -> tuple[Stages, Losses, dict]:
    """Computes the stages, the losses and the gradient of their sum."""
    key = jax.random.key(1)

    @jax.jit
    def compute(params, batch):
        def total(params):
            losses = losses_of(nnx.merge(graphdef, params), key[None], batch)
            return losses.total.sum(), losses

        gradient, losses = jax.grad(total, has_aux=True)(params)
        return run_stages(nnx.merge(graphdef, params), key, batch), losses, gradient

    return jax.device_get(compute(params, batch))


def run_stages(model, key, batch) -> Stages:
    """Takes the steps of `FasterRCNN.losses`, with its keys, for a batch of one."""
    config = model.config
    anchor_key, roi_key, _ = jax.random.split(key, 3)
    image_size = batch.image_sizes[0]
    objects = batch.boxes[0], batch.labels[0], batch.box_mask[0]
    features, feature_sizes, anchors = model.features(batch.images, batch.image_sizes)
    logits, deltas = model.rpn(features)
    anchor_targets = ops.anchor_targets(
        anchor_key,
        anchors[0],
        objects[0],
        objects[2],
        image_size,
        **dataclasses.asdict(config.anchor_targets),
    )
    by_probability = config.proposals.rank_by == "probability"
    scores = jax.nn.softmax(logits) if by_probability else logits
    proposals = model.propose(
        logits, deltas, anchors, batch.image_sizes, batch.scales, True
    )
    proposals = jax.tree.map(lambda x: x[0], proposals)
    targets = ops.proposal_targets(
        roi_key,
        proposals.boxes,
        proposals.mask,
        *objects,
        **dataclasses.asdict(config.proposal_targets),
    )
    pooled = model.pool(features, targets.rois[None], feature_sizes)[0]
    return Stages(
        find_activations(model, batch, features, pooled),
        anchors[0],
        logits[0],
        deltas[0],
        anchor_targets,
        ops.clip_boxes(ops.decode_boxes(anchors[0], deltas[0]), image_size),
        scores[0, :, 1],
        proposals,
        targets,
        pooled,
        *model.head(pooled),
    )


def find_activations(model, batch, features, pooled):
    """What comes out of every ReLU, by the name of its layer in the reference."""
    sizes = batch.image_sizes.astype(jnp.int32)
    x, found = model.normalize(batch.images, batch.image_sizes), []
    for index, block in enumerate(BLOCKS):
        if index > 0:
            x, sizes = downsample(x, sizes)
        for name, _ in block:
            x = zero_outside(nnx.relu(getattr(model.backbone, name)(x)), sizes)
            found.append(x[0])
    found[-1] = features[0]
    names = [f"extractor.{layer}" for layer in CONVOLUTIONS]
    fc6 = model.head.activation(model.head.fc6(pooled.reshape(len(pooled), -1)))
    return dict(zip(names, found, strict=True)) | {
        "rpn.conv1": model.rpn.activation(model.rpn.conv(features))[0],
        "head.classifier.0": fc6,
        "head.classifier.2": model.head.activation(model.head.fc7(fc6)),
    }


def cut_padding(stages, image_size) -> Stages:
    """Leaves out what lies beyond the true image: cells, and the anchors of cells."""
    canvas = np.array(stages.activations["extractor.0"].shape[:2])
    activations = {}
    for name, x in stages.activations.items():
        if x.ndim == 3:
            height, width = np.array(image_size) // (canvas // x.shape[:2])
            x = np.moveaxis(x[:height, :width], -1, 0)[None]
        activations[name] = torch.tensor(np.ascontiguousarray(x))

    height, width = np.array(image_size) // 16
    inside = np.zeros(canvas // 16, bool)
    inside[:height, :width] = True
    inside = np.repeat(inside.ravel(), 9)
    fields = ("anchors", "logits", "deltas", "anchor_targets", "boxes", "objectness")
    cut = {
        name: jax.tree.map(lambda x: x[inside], getattr(stages, name))
        for name in fields
    }
    return stages._replace(activations=activations, **cut)


def to_state(params) -> dict[str, torch.Tensor]:
    """Lays parameters, or their gradient, out as the reference does."""
    layers = dict(zip(CONVOLUTIONS, params["backbone"].values(), strict=True))
    layers = {f"extractor.{number}": layer for number, layer in layers.items()}
    rpn, head = params["rpn"], params["head"]
    layers |= {"rpn.conv1": rpn["conv"], "rpn.score": rpn["score"]}
    layers |= {"rpn.loc": rpn["delta"], "head.classifier.0": head["fc6"]}
    layers |= {"head.classifier.2": head["fc7"], "head.score": head["score"]}
    layers |= {"head.cls_loc": head["delta"]}
    state = {}
    for name, layer in layers.items():
        kernel = np.asarray(layer["kernel"])
        if name == "head.classifier.0":  # rows in the order height, width, channel
            kernel = kernel.reshape(49, -1, kernel.shape[1]).swapaxes(0, 1)
            kernel = kernel.reshape(-1, kernel.shape[2])
        kernel = np.moveaxis(kernel, (-1, -2), (0, 1))
        state[f"{name}.weight"] = torch.tensor(np.ascontiguousarray(kernel))
        state[f"{name}.bias"] = torch.tensor(np.asarray(layer["bias"]))
    return state
