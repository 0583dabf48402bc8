"""Reads the images of a planned batch: resize, flip, pad, stack."""

import dataclasses

import numpy as np

from frcnn_jax.config import DataConfig
from frcnn_jax.data import transforms
from frcnn_jax.data.order import PlannedBatch
from frcnn_jax.data.records import Batch, Source


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads batches, or this process's share of them. Picklable, for the workers."""

    source: Source
    config: DataConfig
    rows: slice  # Which images of a batch are this process's.

    def read(self, planned: PlannedBatch) -> Batch:
        """Reads the images of a batch.

        Raises:
          UserError: An image cannot be read.
        """
        canvas = self.config.canvases[planned.canvas_index]
        flips = planned.flip_draws < self.config.flip_probability
        examples = [
            self._read_image(int(index), canvas, flip=flip, real=real)
            for index, flip, real in zip(
                planned.indices[self.rows],
                flips[self.rows],
                planned.image_mask[self.rows],
                strict=True,
            )
        ]
        return Batch(*map(np.stack, zip(*examples, strict=True)))

    def _read_image(
        self, index: int, canvas: tuple[int, int], *, flip: bool, real: np.bool_
    ) -> Batch:
        """Reads an image as a batch without the leading axis."""
        config, annotation = self.config, self.source.annotations[index]
        image = self.source.read_image(index)
        chosen = ~annotation.difficult
        boxes, labels = annotation.boxes[chosen], annotation.labels[chosen]

        image, boxes, scale = transforms.resize(
            image,
            boxes,
            shorter_side=config.shorter_side,
            longer_side=config.longer_side,
        )
        if flip:
            image, boxes = transforms.flip_horizontally(image, boxes)
        boxes, labels, mask = transforms.pad_boxes(boxes, labels, config.max_objects)
        return Batch(
            images=transforms.pad_to(image, canvas),
            image_sizes=np.array(image.shape[:2], np.float32),
            scales=scale,
            boxes=boxes,
            labels=labels,
            box_mask=mask,
            indices=np.int32(index),
            image_mask=real,
        )
