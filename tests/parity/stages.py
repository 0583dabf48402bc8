"""Our side of the comparison: what every stage computes for one image.

Arrays that come from a canvas larger than the image are cut to the image, and maps and
parameters laid out as the reference has them.
"""

import contextlib
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from jax import Array

from frcnn_jax import ops
from frcnn_jax.models import Losses, vgg16
from frcnn_jax.models.parameters import abstract_detector, random_params
from tests.parity.reference_layers import CONVOLUTIONS

NUM_CLASSES = 20


class Stages(NamedTuple):
    """What `FasterRCNN` computes on the way to the losses; arrays of one image."""

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
    graphdef, _ = abstract_detector(config, NUM_CLASSES)
    params = random_params(config, NUM_CLASSES, seed=0)
    rng = np.random.default_rng(0)

    def draw(path, parameter):
        if path[-1].key == "kernel":
            return parameter
        return jnp.asarray(rng.normal(0.0, 0.1, parameter.shape), jnp.float32)

    return graphdef, jax.tree_util.tree_map_with_path(draw, params)


def run(graphdef, params, batch) -> tuple[Stages, Losses, dict]:
    """Computes the stages, the losses and the gradient of their sum.

    The activations are those of the pass that is differentiated: a ReLU or a max pool
    at a near tie may be decided by rounding, which differs between programs.
    """
    keys = jax.random.key(1)[None]

    @jax.jit
    def compute(params, batch):
        def total(params):
            model = nnx.merge(graphdef, params)
            with recorded_activations(model) as activations:
                outputs = model(batch.images, batch.image_sizes, batch.scales)
                objects = batch.boxes, batch.labels, batch.box_mask
                losses, _ = model.losses(keys, outputs, *objects)
            recorded = list(activations)
            stages = model.stages(keys, outputs, *objects)
            losses, outputs, stages = jax.tree.map(
                lambda x: x[0], (losses, outputs, stages)
            )
            return losses.total, (losses, to_stages(model, outputs, stages, recorded))

        gradient, (losses, stages) = jax.grad(total, has_aux=True)(params)
        return stages, losses, gradient

    return jax.device_get(compute(params, batch))


@contextlib.contextmanager
def recorded_activations(model):
    """Collects what comes out of every ReLU, in order: 13 maps, the RPN, fc6, fc7."""
    activations = []

    def recorded(function):
        def call(x, *rest):
            activations.append(function(x, *rest))
            return activations[-1]

        return call

    # VGG16 zeroes what lies outside of the image after each ReLU, and the model after
    # normalization; downsampling does so by another name.
    zero_outside = recorded(vgg16.zero_outside)
    with (
        mock.patch.object(vgg16, "zero_outside", zero_outside),
        mock.patch.object(model.rpn, "activation", recorded(model.rpn.activation)),
        mock.patch.object(model.head, "activation", recorded(model.head.activation)),
    ):
        yield activations


def to_stages(model, outputs, stages, activations) -> Stages:
    """Adds what the reference computes, too: named activations, boxes, ranking."""
    names = [f"extractor.{layer}" for layer in CONVOLUTIONS]
    names += ["rpn.conv1", "head.classifier.0", "head.classifier.2"]
    # The head's have no axis of one image.
    maps = [x[0] for x in activations[: len(CONVOLUTIONS) + 1]]
    named = dict(zip(names, maps + activations[len(maps) :], strict=True))
    by_probability = model.config.proposals.rank_by == "probability"
    scores = jax.nn.softmax(outputs.logits) if by_probability else outputs.logits
    boxes = ops.decode_boxes(stages.anchors, outputs.deltas)
    return Stages(
        activations=named,
        anchors=stages.anchors,
        logits=outputs.logits,
        deltas=outputs.deltas,
        anchor_targets=stages.anchor_targets,
        boxes=ops.clip_boxes(boxes, outputs.image_sizes),
        objectness=scores[:, 1],
        proposals=stages.proposals,
        proposal_targets=stages.proposal_targets,
        pooled=stages.pooled,
        roi_logits=stages.roi_logits,
        roi_deltas=stages.roi_deltas,
    )


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
