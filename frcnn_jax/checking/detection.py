"""Lets the detector of a run look at the data that are checked."""

import dataclasses

from rich.console import Console
from rich.progress import track

from frcnn_jax import distributed
from frcnn_jax.checking.check import DataCheck
from frcnn_jax.checking.suspects import FAINT, find_suspects
from frcnn_jax.data.records import ImageDetections, Source
from frcnn_jax.detector import Detector
from frcnn_jax.errors import UserError


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
            _check_classes(detector, split.source)
            found = _detect(detector, split.source, f"detecting in {split.name}")
            annotations = split.source.annotations
            suspects[split.name] = find_suspects(
                annotations, found, detector.class_names
            )
    return dataclasses.replace(check, suspects=suspects)


def _check_classes(detector: Detector, source: Source) -> None:
    ours, theirs = detector.class_names, tuple(source.class_names)
    if ours != theirs:
        raise UserError(
            f"{detector.source}: its classes are {', '.join(ours)}, those of the data "
            f"set {', '.join(theirs)}, expected the same"
        )


def _detect(
    detector: Detector, source: Source, description: str
) -> list[ImageDetections]:
    num_images = len(source.annotations)
    images = (source.read_image(index) for index in range(num_images))
    console = Console(stderr=True)
    found = track(
        detector.stream(images, score_threshold=FAINT),
        description,
        total=num_images,
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    return [ImageDetections(each.yxyx, each.scores, each.labels) for each in found]
