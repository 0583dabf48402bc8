"""Faster R-CNN: one method for the training losses, one for detections.

Convolutions run on the batch; everything else is an op for one image, under `vmap`.
Boxes are `(y_min, x_min, y_max, x_max)` in pixels of the resized image.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int, Key, UInt8

from frcnn_jax import ops
from frcnn_jax.config import ModelConfig
from frcnn_jax.models.roi_head import RoIHead
from frcnn_jax.models.rpn import RPN
from frcnn_jax.models.vgg16 import (
    STRIDE,
    VGG16,
    inside_mask,
    near_identity,
    zero_outside,
)

POOLED_SIZE = (7, 7)


class Losses(NamedTuple):
    """The four losses of every image, and what they were computed from."""

    rpn_classification_loss: Array  # [B]
    rpn_localization_loss: Array  # [B]
    roi_classification_loss: Array  # [B]
    roi_localization_loss: Array  # [B]
    num_positive_anchors: Array  # [B] int32, sampled anchors with an object
    num_negative_anchors: Array  # [B] int32, sampled anchors of the background
    num_positive_rois: Array  # [B] int32, sampled proposals with an object
    num_negative_rois: Array  # [B] int32, sampled proposals of the background
    proposal_recall: Array  # [B] share of objects that a proposal meets with IoU >= 0.5

    @property
    def total(self) -> Array | np.ndarray:
        """The sum of the four losses, [B]."""
        return sum(self[:4])


class FasterRCNN(nnx.Module):
    """VGG16, region proposal network and RoI head."""

    def __init__(self, config: ModelConfig, num_classes: int, *, rngs: nnx.Rngs):
        """Makes the networks, with random parameters.

        Args:
          config: sizes and options.
          num_classes: L, classes of the data set, without the background.
          rngs: source of the initial values.
        """
        self.config = config
        activation = {"relu": nnx.relu, "none": _identity}[config.activation]
        kernel_inits = {
            "he": nnx.initializers.he_normal(),
            "near_identity": near_identity,
        }
        self.backbone = VGG16(
            width=config.width,
            frozen_blocks=config.frozen_blocks,
            kernel_init=kernel_inits[config.backbone_init],
            compute_dtype=config.compute_dtype,
            rngs=rngs,
        )
        self.rpn = RPN(
            self.backbone.out_channels,
            config.rpn_channels,
            len(config.anchor_scales) * len(config.anchor_ratios),
            activation=activation,
            compute_dtype=config.compute_dtype,
            rngs=rngs,
        )
        self.head = RoIHead(
            POOLED_SIZE[0] * POOLED_SIZE[1] * self.backbone.out_channels,
            config.head_channels,
            num_classes,
            activation=activation,
            dropout=config.dropout,
            compute_dtype=config.compute_dtype,
            rngs=rngs,
        )

    def losses(
        self,
        keys: Key[Array, " b"],
        images: UInt8[Array, "b height width 3"],
        image_sizes: Float[Array, "b 2"],
        scales: Float[Array, "b 2"],
        gt_boxes: Float[Array, "b m 4"],
        gt_labels: Int[Array, "b m"],
        gt_mask: Bool[Array, "b m"],
    ) -> Losses:
        """Computes the training losses of every image.

        Args:
          keys: [B] PRNG keys, one an image, of its samples and dropout.
          images: [B, height, width, 3] RGB, padded to the canvas.
          image_sizes: [B, 2] (height, width) of the true images, in pixels.
          scales: [B, 2] resized / original size, down and across.
          gt_boxes: [B, M, 4] objects, padded.
          gt_labels: [B, M] classes from 0.
          gt_mask: [B, M] which objects are real.

        Returns:
          `Losses`, arrays of [B].
        """
        anchor_keys, roi_keys, dropout_keys = jax.vmap(
            functools.partial(jax.random.split, num=3), out_axes=1
        )(keys)
        features, feature_sizes, anchors = self.features(images, image_sizes)
        logits, deltas = self.rpn(features)
        anchor_targets = jax.vmap(
            functools.partial(
                ops.anchor_targets, **dataclasses.asdict(self.config.anchor_targets)
            )
        )(anchor_keys, anchors, gt_boxes, gt_mask, image_sizes)

        proposals = self.propose(logits, deltas, anchors, image_sizes, scales, True)
        targets = jax.vmap(
            functools.partial(
                ops.proposal_targets, **dataclasses.asdict(self.config.proposal_targets)
            )
        )(roi_keys, proposals.boxes, proposals.mask, gt_boxes, gt_labels, gt_mask)
        pooled = self.pool(features, targets.rois, feature_sizes)
        roi_logits, roi_deltas = jax.vmap(self.head)(pooled, dropout_keys)

        options = self.config.losses
        shared = {
            "normalizer": options.normalizer,
            "localization_weight": options.localization_weight,
        }
        rpn_losses = jax.vmap(
            functools.partial(ops.rpn_loss, beta=options.rpn_beta, **shared)
        )(logits, deltas, anchor_targets)
        roi_losses = jax.vmap(
            functools.partial(
                ops.roi_loss,
                beta=options.roi_beta,
                delta_std=options.delta_std,
                **shared,
            )
        )(roi_logits, roi_deltas, targets)
        return Losses(
            *rpn_losses,
            *roi_losses,
            (anchor_targets.labels > 0).sum(axis=1),
            (anchor_targets.labels == 0).sum(axis=1),
            (targets.labels > 0).sum(axis=1),
            (targets.mask & (targets.labels == 0)).sum(axis=1),
            jax.vmap(_recall)(proposals, gt_boxes, gt_mask),
        )

    def detect(
        self,
        images: UInt8[Array, "b height width 3"],
        image_sizes: Float[Array, "b 2"],
        scales: Float[Array, "b 2"],
    ) -> ops.Detections:
        """Finds the objects of every image.

        Args:
          images: [B, height, width, 3] RGB, padded to the canvas.
          image_sizes: [B, 2] (height, width) of the true images, in pixels.
          scales: [B, 2] resized / original size, down and across.

        Returns:
          `ops.Detections` with arrays of [B, D, ...], boxes in pixels of the resized
          image.
        """
        features, feature_sizes, anchors = self.features(images, image_sizes)
        logits, deltas = self.rpn(features)
        proposals = self.propose(logits, deltas, anchors, image_sizes, scales, False)
        pooled = self.pool(features, proposals.boxes, feature_sizes)
        roi_logits, roi_deltas = jax.vmap(self.head)(pooled)
        return jax.vmap(
            functools.partial(
                ops.select_detections, **dataclasses.asdict(self.config.detection)
            )
        )(
            jax.nn.softmax(roi_logits),
            roi_deltas * jnp.asarray(self.config.losses.delta_std)[None, None, None],
            proposals.boxes,
            proposals.mask,
            image_sizes,
        )

    def features(
        self,
        images: UInt8[Array, "b height width 3"],
        image_sizes: Float[Array, "b 2"],
    ) -> tuple[Float[Array, "b h w c"], Int[Array, "b 2"], Float[Array, "b n 4"]]:
        """Computes feature maps, the sizes of their real parts, and the anchors.

        Anchors of cells beyond the real part are empty boxes outside the image.
        """
        sizes = image_sizes.astype(jnp.int32)
        features, sizes = self.backbone(self.normalize(images, image_sizes), sizes)
        base = ops.base_anchors(
            self.config.anchor_scales, self.config.anchor_ratios, STRIDE
        )
        anchors = ops.grid_anchors(features.shape[1:3], base, STRIDE)
        inside = inside_mask(features.shape[1:3], sizes).reshape(len(images), -1)
        inside = jnp.repeat(inside, len(base), axis=1)
        return features, sizes, jnp.where(inside[..., None], anchors[None], -1.0)

    def normalize(
        self,
        images: UInt8[Array, "b height width 3"],
        image_sizes: Float[Array, "b 2"],
    ) -> Float[Array, "b height width 3"]:
        """Makes of the pixels what the backbone expects; zero outside the image."""
        options = self.config.preprocessing
        x = images.astype(jnp.float32)
        if options.channel_order == "BGR":
            x = x[..., ::-1]
        mean = jnp.asarray(options.pixel_mean)[None, None, None]
        std = jnp.asarray(options.pixel_std)[None, None, None]
        return zero_outside((x - mean) / std, image_sizes.astype(jnp.int32))

    def propose(
        self,
        logits: Float[Array, "b n 2"],
        deltas: Float[Array, "b n 4"],
        anchors: Float[Array, "b n 4"],
        image_sizes: Float[Array, "b 2"],
        scales: Float[Array, "b 2"],
        training: bool,
    ) -> ops.Proposals:
        """Turns the RPN's output into proposals, [B, P, ...]."""
        options = self.config.proposals
        objectness = logits[..., 1]
        if options.rank_by == "probability":
            objectness = jax.nn.softmax(logits)[..., 1]
        empty = anchors[..., 2] <= anchors[..., 0]
        objectness = jnp.where(empty, -jnp.inf, objectness)

        def propose(objectness, deltas, anchors, image_size, min_size):
            return ops.propose(
                objectness,
                deltas,
                anchors,
                image_size,
                pre_nms=options.pre_nms_train if training else options.pre_nms_test,
                post_nms=options.post_nms_train if training else options.post_nms_test,
                iou_threshold=options.iou_threshold,
                min_size=min_size,
            )

        min_sizes = options.min_size * scales.mean(axis=1)
        return jax.vmap(propose)(objectness, deltas, anchors, image_sizes, min_sizes)

    def pool(
        self,
        features: Float[Array, "b h w c"],
        rois: Float[Array, "b r 4"],
        feature_sizes: Int[Array, "b 2"],
    ) -> Float[Array, "b r p q c"]:
        """Pools the features of every RoI."""

        def pool(features, rois, feature_size):
            options = {"output_size": POOLED_SIZE, "feature_size": feature_size}
            if self.config.pooling == "align":
                return ops.roi_align(features, rois, **options)
            return ops.roi_pool(
                features, rois, rounding=self.config.rounding, **options
            )

        return jax.vmap(pool)(features, rois, feature_sizes)


def _identity(x: Array) -> Array:
    return x


def _recall(
    proposals: ops.Proposals, gt_boxes: Float[Array, "m 4"], gt_mask: Bool[Array, " m"]
) -> Float[Array, ""]:
    """Computes the share of objects met by a proposal; 1 where there are none."""
    iou = ops.box_iou(proposals.boxes, gt_boxes).max(axis=0, initial=0.0)
    met = (iou >= 0.5) & gt_mask
    count = gt_mask.sum()
    return jnp.where(count > 0, met.sum() / jnp.maximum(count, 1), 1.0)
