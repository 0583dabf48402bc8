"""Faster R-CNN: from images to training losses, and from images to detections.

The networks run on the batch. Everything between them is written for one image, with
the functions of `frcnn_jax.ops`, under `jax.vmap`. Boxes are
`(y_min, x_min, y_max, x_max)` in pixels of the resized image.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int, Key, UInt8

from frcnn_jax import ops
from frcnn_jax.config import ModelConfig
from frcnn_jax.models.layers import inside_mask, zero_outside
from frcnn_jax.models.roi_head import RoIHead
from frcnn_jax.models.rpn import RPN
from frcnn_jax.models.vgg16 import STRIDE, VGG16, near_identity
from frcnn_jax.ops.sampling import split_key

POOLED_SIZE = (7, 7)


class DenseOutputs(NamedTuple):
    """What the convolutions compute for a batch, and what they computed it from.

    Under `jax.vmap` the same fields without B describe one image.
    """

    features: Array  #: [B, H, W, C] feature maps
    feature_sizes: Array  #: [B, 2] int32 (height, width) of their real parts, in cells
    logits: Array  #: [B, N, 2] scores of (background, object), N = H * W * A
    deltas: Array  #: [B, N, 4]
    image_sizes: Array  #: [B, 2] (height, width) of the true images, in pixels
    scales: Array  #: [B, 2] resized / original size, (y, x)


class TrainingStages(NamedTuple):
    """What the losses are computed from, in the order of computation.

    Under `jax.vmap` the same fields without B describe one image.
    """

    anchors: Array  #: [B, N, 4]
    anchor_targets: ops.AnchorTargets  #: of N anchors an image
    proposals: ops.Proposals  #: P an image
    proposal_targets: ops.ProposalTargets  #: of R sampled RoIs an image
    pooled: Array  #: [B, R, 7, 7, C]
    roi_logits: Array  #: [B, R, L + 1]
    roi_deltas: Array  #: [B, R, L + 1, 4], normalized


class Losses(NamedTuple):
    """The four losses; arrays of [B], or scalars of one image."""

    rpn_classification_loss: Array
    rpn_localization_loss: Array
    roi_classification_loss: Array
    roi_localization_loss: Array

    @property
    def total(self) -> Array | np.ndarray:
        """The sum of the four losses."""
        return self[0] + self[1] + self[2] + self[3]


class SamplingStats(NamedTuple):
    """What the losses were computed from; arrays of [B], or scalars of one image."""

    num_positive_anchors: Array  #: int32, sampled anchors with an object
    num_negative_anchors: Array  #: int32, sampled anchors of the background
    num_positive_rois: Array  #: int32, sampled proposals with an object
    num_negative_rois: Array  #: int32, sampled proposals of the background
    proposal_recall: Array  #: share of objects that a proposal overlaps by IoU >= 0.5


class FasterRCNN(nnx.Module):
    """VGG16, region proposal network and RoI head."""

    def __init__(
        self, config: ModelConfig, num_classes: int, *, rngs: nnx.Rngs
    ) -> None:
        """Builds the networks, with random parameters.

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

    def __call__(
        self,
        images: UInt8[Array, "b height width 3"],
        image_sizes: Float[Array, "b 2"],
        scales: Float[Array, "b 2"],
    ) -> DenseOutputs:
        """Runs the backbone and the region proposal network.

        Args:
          images: [B, height, width, 3] RGB, padded to the canvas.
          image_sizes: [B, 2] (height, width) of the true images, in pixels.
          scales: [B, 2] resized / original size, (y, x).

        Returns:
          The input of `losses` and `detect`.
        """
        features, feature_sizes = self.backbone(
            self.normalize(images, image_sizes), image_sizes.astype(jnp.int32)
        )
        logits, deltas = self.rpn(features)
        return DenseOutputs(
            features, feature_sizes, logits, deltas, image_sizes, scales
        )

    def losses(
        self,
        keys: Key[Array, " b"],
        outputs: DenseOutputs,
        gt_boxes: Float[Array, "b m 4"],
        gt_labels: Int[Array, "b m"],
        gt_mask: Bool[Array, "b m"],
    ) -> tuple[Losses, SamplingStats]:
        """Computes the training losses of every image.

        Args:
          keys: [B] PRNG keys, one per image, for its samples and dropout.
          outputs: of `__call__`.
          gt_boxes: [B, M, 4] objects, padded.
          gt_labels: [B, M] classes, from 0.
          gt_mask: [B, M] which objects are real.

        Returns:
          The losses and what they were computed from, arrays of [B].
        """
        stages = self.stages(keys, outputs, gt_boxes, gt_labels, gt_mask)
        return jax.vmap(self._image_losses)(stages, outputs, gt_boxes, gt_mask)

    def detect(self, outputs: DenseOutputs) -> ops.Detections:
        """Finds the objects of every image.

        Args:
          outputs: of `__call__`.

        Returns:
          `ops.Detections` with arrays of [B, D, ...], boxes in pixels of the resized
          image.
        """
        return jax.vmap(self.image_detections)(outputs)

    def propose(self, outputs: DenseOutputs) -> ops.Proposals:
        """Proposes the boxes that `detect` starts from, the best first.

        Args:
          outputs: of `__call__`.

        Returns:
          `ops.Proposals` with arrays of [B, P, ...], boxes in pixels of the resized
          image.
        """
        return jax.vmap(self._image_proposals)(outputs)

    def stages(
        self,
        keys: Key[Array, " b"],
        outputs: DenseOutputs,
        gt_boxes: Float[Array, "b m 4"],
        gt_labels: Int[Array, "b m"],
        gt_mask: Bool[Array, "b m"],
    ) -> TrainingStages:
        """Samples anchors and proposals of every image; the head classifies the latter.

        Args:
          keys: [B] PRNG keys, one per image, for its samples and dropout.
          outputs: of `__call__`.
          gt_boxes: [B, M, 4] objects, padded.
          gt_labels: [B, M] classes, from 0.
          gt_mask: [B, M] which objects are real.

        Returns:
          Everything that the losses are computed from.
        """
        keys = jax.vmap(split_key, (0, None))(keys, 3)
        sampled = jax.vmap(self._image_samples)(
            keys[:, :2], outputs, gt_boxes, gt_labels, gt_mask
        )
        # All images' RoIs are the rows of one product for each layer.
        pooled = sampled[-1]
        logits, deltas = self.head(pooled.reshape(-1, *pooled.shape[2:]), keys[:, 2])
        rois = pooled.shape[:2]
        return TrainingStages._make(
            (*sampled, logits.reshape(*rois, -1), deltas.reshape(*rois, -1, 4))
        )

    def _image_samples(
        self,
        keys: Key[Array, "2"],
        outputs: DenseOutputs,
        gt_boxes: Float[Array, "m 4"],
        gt_labels: Int[Array, " m"],
        gt_mask: Bool[Array, " m"],
    ) -> tuple[Any, ...]:
        """Computes the stages of one image before the head, `pooled` the last."""
        anchors = self._anchors(outputs)
        options = self.config.proposals
        # Stage 1: the region proposal network learns from sampled anchors.
        anchor_targets = ops.anchor_targets(
            keys[0],
            anchors,
            gt_boxes,
            gt_mask,
            outputs.image_sizes,
            **vars(self.config.anchor_targets),
        )
        # Stage 2: the head learns from sampled proposals.
        proposals = self._propose(
            outputs, anchors, options.pre_nms_train, options.post_nms_train
        )
        targets = ops.proposal_targets(
            keys[1],
            proposals.boxes,
            proposals.mask,
            gt_boxes,
            gt_labels,
            gt_mask,
            **vars(self.config.proposal_targets),
        )
        pooled = self._pool(outputs, targets.rois)
        return anchors, anchor_targets, proposals, targets, pooled

    def _image_losses(
        self,
        stages: TrainingStages,
        outputs: DenseOutputs,
        gt_boxes: Float[Array, "m 4"],
        gt_mask: Bool[Array, " m"],
    ) -> tuple[Losses, SamplingStats]:
        """Computes the losses of one image."""
        options = self.config.losses
        rpn_losses = ops.rpn_loss(
            outputs.logits,
            outputs.deltas,
            stages.anchor_targets,
            beta=options.rpn_beta,
            normalizer=options.normalizer,
            localization_weight=options.localization_weight,
        )
        roi_losses = ops.roi_loss(
            stages.roi_logits,
            stages.roi_deltas,
            stages.proposal_targets,
            beta=options.roi_beta,
            delta_std=options.delta_std,
            normalizer=options.normalizer,
            localization_weight=options.localization_weight,
        )
        anchor_labels = stages.anchor_targets.labels
        roi_labels, roi_mask = (
            stages.proposal_targets.labels,
            stages.proposal_targets.mask,
        )
        return Losses(*rpn_losses, *roi_losses), SamplingStats(
            num_positive_anchors=_count(anchor_labels > 0),
            num_negative_anchors=_count(anchor_labels == 0),
            num_positive_rois=_count(roi_labels > 0),
            num_negative_rois=_count(roi_mask & (roi_labels == 0)),
            proposal_recall=_recall(stages.proposals, gt_boxes, gt_mask),
        )

    def image_detections(self, outputs: DenseOutputs) -> ops.Detections:
        """Finds the objects of one image; boxes in pixels of the resized image.

        Args:
          outputs: of one image, without the batch axis.
        """
        proposals = self._image_proposals(outputs)
        roi_logits, roi_deltas = self.head(self._pool(outputs, proposals.boxes))
        return ops.select_detections(
            jax.nn.softmax(roi_logits),
            roi_deltas
            * jnp.asarray(self.config.losses.delta_std, jnp.float32)[None, None],
            proposals.boxes,
            proposals.mask,
            outputs.image_sizes,
            **vars(self.config.detection),
        )

    def _image_proposals(self, outputs: DenseOutputs) -> ops.Proposals:
        """Proposes boxes for one image, as many as in detection."""
        options = self.config.proposals
        anchors = self._anchors(outputs)
        return self._propose(
            outputs, anchors, options.pre_nms_test, options.post_nms_test
        )

    def normalize(
        self,
        images: UInt8[Array, "b height width 3"],
        image_sizes: Float[Array, "b 2"],
    ) -> Float[Array, "b height width 3"]:
        """Normalizes pixels to what the backbone expects; zero outside the image.

        Args:
          images: [B, height, width, 3] RGB, padded to the canvas.
          image_sizes: [B, 2] (height, width) of the true images, in pixels.
        """
        options = self.config.preprocessing
        x = images.astype(jnp.float32)
        if options.channel_order == "BGR":
            x = x[..., ::-1]
        mean = jnp.asarray(options.pixel_mean, jnp.float32)[None, None, None]
        std = jnp.asarray(options.pixel_std, jnp.float32)[None, None, None]
        return zero_outside((x - mean) / std, image_sizes.astype(jnp.int32))

    def _anchors(self, outputs: DenseOutputs) -> Float[Array, "n 4"]:
        """Lays out the anchors; those beyond the real part are empty and outside."""
        config = self.config
        feature_shape = (outputs.features.shape[0], outputs.features.shape[1])
        base = ops.base_anchors(config.anchor_scales, config.anchor_ratios, STRIDE)
        inside = inside_mask(feature_shape, outputs.feature_sizes[None]).reshape(-1)
        inside = jnp.repeat(inside, len(base))[:, None]
        return jnp.where(inside, ops.grid_anchors(feature_shape, base, STRIDE), -1.0)

    def _propose(
        self,
        outputs: DenseOutputs,
        anchors: Float[Array, "n 4"],
        pre_nms: int,
        post_nms: int,
    ) -> ops.Proposals:
        """Turns the RPN's output for one image into proposals."""
        options = self.config.proposals
        objectness = outputs.logits[:, 1]
        if options.rank_by == "probability":
            objectness = jax.nn.softmax(outputs.logits)[:, 1]
        is_empty = anchors[:, 2] <= anchors[:, 0]
        return ops.propose(
            jnp.where(is_empty, -jnp.inf, objectness),
            outputs.deltas,
            anchors,
            outputs.image_sizes,
            pre_nms=pre_nms,
            post_nms=post_nms,
            iou_threshold=options.iou_threshold,
            min_size=options.min_size * outputs.scales.mean(),
        )

    def _pool(
        self, outputs: DenseOutputs, rois: Float[Array, "r 4"]
    ) -> Float[Array, "r p q c"]:
        """Pools the features of every RoI of one image."""
        features, feature_size = outputs.features, outputs.feature_sizes
        if self.config.pooling == "align":
            return ops.roi_align(
                features, rois, output_size=POOLED_SIZE, feature_size=feature_size
            )
        return ops.roi_pool(
            features,
            rois,
            output_size=POOLED_SIZE,
            rounding=self.config.rounding,
            feature_size=feature_size,
        )


def image_keys(key: Key[Array, ""], indices: Int[Array, " b"]) -> Key[Array, " b"]:
    """Derives one key per image from its index, independent of its batch.

    Args:
      key: PRNG key of the step.
      indices: [B] the images' indices in their source.
    """
    return jax.vmap(jax.random.fold_in, (None, 0))(key, indices)


def _identity(x: Array) -> Array:
    return x


def _count(mask: Bool[Array, " n"]) -> Int[Array, ""]:
    return mask.sum(dtype=jnp.int32)


def _recall(
    proposals: ops.Proposals, gt_boxes: Float[Array, "m 4"], gt_mask: Bool[Array, " m"]
) -> Float[Array, ""]:
    """Computes the share of objects that a proposal overlaps; 1 without objects."""
    iou = ops.box_iou(proposals.boxes, gt_boxes).max(axis=0, initial=0.0)
    found = (iou >= 0.5) & gt_mask
    count = _count(gt_mask)
    return jnp.where(count > 0, _count(found) / jnp.maximum(count, 1), 1.0)
