"""The training step of the VOC recipe by PyTorch and torchvision.

Written as torchvision's own detectors are: layers on the batch, what follows them image
by image, with as many boxes as there are.
"""

import torch
import torchvision
from torch import Tensor
from torch.nn import functional

from benchmarks import training
from benchmarks.peer_detector import XYXY, PeerDetector, encode
from frcnn_jax.config import ModelConfig
from frcnn_jax.data.records import Batch
from frcnn_jax.models.parameters import flatten, random_params
from frcnn_jax.models.vgg16 import BLOCKS


class PeerTrainer:
    """A detector and its optimizer; call it with a number of steps to train."""

    def __init__(
        self,
        config: ModelConfig,
        batch: Batch,
        precision: str,
        *,
        is_compiled: bool = False,
    ) -> None:
        """Puts parameters, those of our `Trainer`, and batch on the device.

        Args:
          config: sizes and options.
          batch: that every step trains on.
          precision: float32, tf32 or bfloat16.
          is_compiled: whether `torch.compile` compiles the backbone and the RPN; what
            follows has as many boxes as there are.
        """
        self.config = config
        # What other peers hold is not counted as this one's memory.
        self._held = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
        params = random_params(config, training.NUM_CLASSES, 0)
        self.detector = PeerDetector(config, flatten(params), precision)
        device = self.detector.device
        self.layers = torch.compile(_layers, dynamic=False) if is_compiled else _layers
        self.optimizer = self._make_optimizer()
        self.images = torch.tensor(batch.images.transpose(0, 3, 1, 2), device=device)
        self.boxes, self.labels = [], []
        for boxes, labels, mask in zip(
            batch.boxes, batch.labels, batch.box_mask, strict=True
        ):
            self.boxes.append(self.detector.to_tensor(boxes[mask][:, XYXY]))
            self.labels.append(torch.tensor(labels[mask], device=device).long())

    def __call__(self, num_steps: int) -> float:
        """Trains, and returns the last loss."""
        for _ in range(num_steps):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss()
            loss.backward()
            self.optimizer.step()
        return loss.item()  # waits for the device

    def memory(self) -> int:
        """Trains a step, and returns its peak memory in bytes; 0 on a CPU.

        The first step, in which cuDNN tries its algorithms, would need more.
        """
        if self.detector.device != "cuda":
            return 0
        torch.cuda.reset_peak_memory_stats()
        self(1)
        return torch.cuda.max_memory_allocated() - self._held

    def loss(self) -> Tensor:
        """Computes the mean over the images of the sum of the four losses."""
        options, losses = self.config.losses, []
        image_size = self.images.shape[2], self.images.shape[3]
        with self.detector.autocast():
            features, logits, deltas = self.layers(self.detector, self.images)
            anchors = self.detector.anchors(features)
            samples = []
            for image, boxes in enumerate(self.boxes):
                losses.append(
                    self._rpn_loss(
                        logits[image], deltas[image], anchors, boxes, image_size
                    )
                )
                with torch.no_grad():
                    proposals = self._propose(
                        logits[image], deltas[image], anchors, image_size
                    )
                    samples.append(
                        self._sample_rois(proposals, boxes, self.labels[image])
                    )
            rois, labels, targets = zip(*samples, strict=True)
            logits, deltas = self.detector.head(features, rois)
        counts = [len(each) for each in rois]
        each_image = zip(
            logits.split(counts), deltas.split(counts), labels, targets, strict=True
        )
        for logits, deltas, labels, targets in each_image:
            own_class = deltas[torch.arange(len(labels)), labels]
            losses.append(
                _loss(logits, own_class, labels, targets, beta=options.roi_beta)
            )
        return torch.stack(losses).sum() / len(self.boxes)

    def _propose(self, logits, deltas, anchors, image_size) -> Tensor:
        options = self.config.proposals
        counts = options.pre_nms_train, options.post_nms_train
        return self.detector.propose(logits, deltas, anchors, image_size, *counts)

    def _rpn_loss(self, logits, deltas, anchors, boxes, image_size) -> Tensor:
        options = self.config.anchor_targets
        height, width = image_size
        limit = anchors.new_tensor([width, height])
        inside = (anchors[:, :2] >= 0).all(dim=1) & (anchors[:, 2:] <= limit).all(dim=1)
        inside = inside.nonzero()[:, 0]
        iou = torchvision.ops.box_iou(anchors[inside], boxes)
        max_iou, assignment = iou.max(dim=1)
        best = iou.max(dim=0).values
        is_positive = max_iou >= options.positive_iou
        is_positive |= ((iou == best) & (best > 0)).any(dim=1)
        is_negative = (max_iou < options.negative_iou) & ~is_positive
        positives, negatives = _sample(is_positive, is_negative, options)
        chosen = inside[torch.cat([positives, negatives])]
        labels = torch.zeros_like(chosen)
        labels[: len(positives)] = 1
        targets = encode(anchors[inside[positives]], boxes[assignment[positives]])
        return _loss(
            logits[chosen],
            deltas[chosen],
            labels,
            targets,
            beta=self.config.losses.rpn_beta,
        )

    def _sample_rois(self, proposals, boxes, labels) -> tuple[Tensor, Tensor, Tensor]:
        """Returns RoIs [R, 4], their classes [R] and the targets of the first ones."""
        options = self.config.proposal_targets
        proposals = torch.cat([proposals, boxes])
        max_iou, assignment = torchvision.ops.box_iou(proposals, boxes).max(dim=1)
        is_positive = max_iou >= options.positive_iou
        is_negative = (max_iou < options.negative_iou_high) & ~is_positive
        positives, negatives = _sample(is_positive, is_negative, options)
        rois = proposals[torch.cat([positives, negatives])]
        classes = labels.new_zeros(len(rois))
        classes[: len(positives)] = labels[assignment[positives]] + 1
        targets = encode(rois[: len(positives)], boxes[assignment[positives]])
        return rois, classes, targets / self.detector.delta_std

    def _make_optimizer(self) -> torch.optim.Optimizer:
        options = training.OPTIMIZER
        frozen = {name for b in BLOCKS[: self.config.frozen_blocks] for name, _ in b}
        kernels, biases = [], []
        for name, weight in self.detector.weights.items():
            _, layer, kind = name.split(".")
            if layer not in frozen:
                (kernels if kind == "kernel" else biases).append(
                    weight.requires_grad_()
                )
        rate = options.learning_rate
        return torch.optim.SGD(
            [
                {"params": kernels, "weight_decay": options.weight_decay},
                {"params": biases, "lr": rate * options.bias_rate_factor},
            ],
            lr=rate,
            momentum=options.momentum,
            fused=True,
        )


def _layers(detector: PeerDetector, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    features = detector.backbone(detector.normalize(images))
    return features, *detector.rpn(features)


def _sample(is_positive: Tensor, is_negative: Tensor, options) -> tuple[Tensor, Tensor]:
    """Draws indices of positives and negatives, at most as many as the options say."""
    max_positives = int(options.num_samples * options.positive_fraction)
    positives = _draw(is_positive, max_positives)
    return positives, _draw(is_negative, options.num_samples - len(positives))


def _draw(mask: Tensor, count: int) -> Tensor:
    candidates = mask.nonzero()[:, 0]
    order = torch.randperm(len(candidates), device=mask.device)
    return candidates[order[:count]]


def _loss(logits, deltas, labels, targets, *, beta: float) -> Tensor:
    """Sums both losses; the targets are those of the first boxes, the positives."""
    classification = functional.cross_entropy(logits, labels)
    localization = functional.smooth_l1_loss(
        deltas[: len(targets)], targets, beta=beta, reduction="sum"
    )
    return classification + localization / len(labels)
