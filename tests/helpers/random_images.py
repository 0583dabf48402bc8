"""Random detections of objects: some good, some twice, some elsewhere or confused."""

from collections.abc import Sequence

import numpy as np

from frcnn_jax.data.records import Annotation, ImageDetections

IMAGE_SIZE = (300, 400)


def random_truth(
    random: np.random.Generator, num_classes: int, num_objects: int
) -> Annotation:
    """Makes an image's objects, a fifth of them difficult, in a few classes."""
    sides = np.exp(random.uniform(np.log(8), np.log(200), (num_objects, 2)))
    corners = random.uniform(0, np.array(IMAGE_SIZE) - sides)
    present = random.integers(0, num_classes, 3)
    return Annotation(
        image_id=f"image{random.integers(1_000_000)}",
        image_size=IMAGE_SIZE,
        boxes=np.concatenate([corners, corners + sides], axis=1).astype(np.float32),
        labels=random.choice(present, num_objects).astype(np.int32),
        difficult=random.random(num_objects) < 0.2,
    )


def random_detections(
    random: np.random.Generator, truth, num_classes: int, num_wrong: int
) -> ImageDetections:
    """Makes up to three detections around every object, and others anywhere."""
    boxes = truth.boxes
    nearby = np.repeat(np.arange(len(boxes)), random.integers(0, 4, len(boxes)))
    sides = np.tile(boxes[nearby, 2:] - boxes[nearby, :2], 2)
    near = boxes[nearby] + random.normal(0.0, 0.1, sides.shape) * sides
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1.0)
    elsewhere = random_truth(random, num_classes, num_wrong)
    other_label = random.integers(0, num_classes, len(nearby))
    is_confused = random.random(len(nearby)) < 0.15
    labels = np.where(is_confused, other_label, truth.labels[nearby])
    scores = [random.beta(4, 2, len(nearby)), random.beta(1, 3, num_wrong)]
    return ImageDetections(
        np.concatenate([near, elsewhere.boxes]).astype(np.float32),
        np.concatenate(scores).astype(np.float32),
        np.concatenate([labels, elsewhere.labels]).astype(np.int32),
    )


def random_split(
    seed: int,
    *,
    num_images: int = 30,
    num_classes: int = 4,
    num_objects: int = 6,
    num_wrong: int = 6,
) -> tuple[list[ImageDetections], list[Annotation]]:
    """Makes images with up to twice these numbers of boxes; some have none."""
    random = np.random.default_rng(seed)
    truths = [
        random_truth(random, num_classes, random.integers(0, 2 * num_objects + 1))
        for _ in range(num_images)
    ]
    return detect_randomly(random, truths, num_classes, num_wrong), truths


def detect_randomly(
    random: np.random.Generator, truths: Sequence, num_classes: int, num_wrong: int
) -> list[ImageDetections]:
    """Makes detections of images."""
    return [
        random_detections(
            random, truth, num_classes, int(random.integers(0, 2 * num_wrong + 1))
        )
        for truth in truths
    ]


def with_ties(
    detections: Sequence[ImageDetections],
) -> list[ImageDetections]:
    """Rounds scores and boxes, so that many are equal."""
    return [
        ImageDetections(np.round(each.boxes / 8) * 8, each.scores.round(1), each.labels)
        for each in detections
    ]
