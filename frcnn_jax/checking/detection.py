"""Runs a trained detector on the data that are checked."""

import dataclasses

from frcnn_jax import distributed
from frcnn_jax.checking.check import DataCheck
from frcnn_jax.checking.progress import show_progress
from frcnn_jax.checking.suspects import FAINT, find_suspects
from frcnn_jax.data.records import ImageDetections, Source, check_classes
from frcnn_jax.detector import Detector


def add_suspects(check: DataCheck, detector: Detector) -> DataCheck:
    """Detects objects in the splits that are used, and lists labels in dispute.

    Args:
      check: of the data set.
      detector: of the same classes.

    Raises:
      UserError: if it has other classes.
    """
    distributed.enable_compilation_cache(check.config.compilation_cache)
    suspects = {}
    for split in check.splits:
        if split.uses:
            check_classes(detector.source, detector.class_names, split.source)
            found = _detect(detector, split.source, f"detecting in {split.name}")
            annotations = split.source.annotations
            suspects[split.name] = find_suspects(
                annotations, found, detector.class_names
            )
    return dataclasses.replace(check, suspects=suspects)


def _detect(
    detector: Detector, source: Source, description: str
) -> list[ImageDetections]:
    num_images = len(source.annotations)
    images = (source.read_image(index) for index in range(num_images))
    stream = detector.stream(images, score_threshold=FAINT)
    found = show_progress(stream, description, num_images)
    return [ImageDetections(each.yxyx, each.scores, each.labels) for each in found]
