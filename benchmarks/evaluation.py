"""COCO's figures of 5,000 images beside pycocotools: `python -m benchmarks.evaluation`.

Detections and objects are random: 80 classes, 7 objects in an image and 3 classes of
them, and some or many detections.
"""

import time

from frcnn_jax.evaluation import coco
from tests.helpers import pycoco
from tests.helpers.random_images import random_split

NUM_IMAGES, NUM_CLASSES = 5000, 80


def main() -> None:
    """Prints a row for each number of detections."""
    print("| detections | ours, s | pycocotools, s | largest difference |")
    print("|---:|---:|---:|---:|")
    for num_wrong in (10, 90):
        found, there = random_split(
            0,
            num_images=NUM_IMAGES,
            num_classes=NUM_CLASSES,
            num_objects=7,
            num_wrong=num_wrong,
        )
        ours, seconds = timed(coco.average_precisions, found, there)
        theirs, peer_seconds = timed(pycoco.average_precisions, found, there)
        difference = max(abs(ours[name] - theirs[name]) for name in ours)
        number = sum(len(image.labels) for image in found)
        print(
            f"| {number:,} | {seconds:.1f} | {peer_seconds:.1f} | {difference:.0e} |",
            flush=True,
        )


def timed(function, found, there):
    start = time.perf_counter()
    figures = function(found, there, NUM_CLASSES)
    return figures, time.perf_counter() - start


if __name__ == "__main__":
    main()
