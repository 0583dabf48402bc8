"""The worst mistakes of a detector, as crops of the pictures they were made in."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from frcnn_jax.data.records import ImageDetections, Source
from frcnn_jax.errors import UserError
from frcnn_jax.evaluation.breakdown import finding_scores
from frcnn_jax.evaluation.evaluated_split import EvaluatedSplit
from frcnn_jax.evaluation.matching import flatten
from frcnn_jax.evaluation.tide import ERRORS, TIDEErrors, tide_errors
from frcnn_jax.report.pictures import crop, to_uri
from frcnn_jax.visualization import drawing
from frcnn_jax.visualization.detections import draw_detections

NUM_EXAMPLES = 8  # of missed objects, and of wrong detections
_PICTURE_WIDTH = 1100  # pixels, at most
_WRONG = {
    "class": "is {real}",
    "location": "badly placed",
    "both": "wrong in class and place",
    "duplicate": "found already",
    "background": "nothing is there",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mistake:
    """A missed object or a wrong detection."""

    image: int  # index in the split
    box: np.ndarray  # [4] pixels
    label: int
    text: str  # what happened, for the reader


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """A mistake with its picture."""

    text: str
    crop: str  # data URI of a JPEG
    image: int  # index in the split: which picture shows all


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """What a page shows of one run."""

    missed: list[Example]
    wrong: list[Example]
    pictures: dict[int, tuple[str, str]]  # by index: image id, data URI of a JPEG
    missing: list[str]  # images that cannot be read


def worst_mistakes(
    split: EvaluatedSplit, thresholds: np.ndarray
) -> tuple[list[Mistake], list[Mistake]]:
    """Lists missed objects, and wrong detections, the worst first.

    Missed objects are listed by size, the classes taking turns; wrong detections by
    score.

    Args:
      split: that was evaluated.
      thresholds: [L] scores from which detections count.
    """
    errors = tide_errors(*split.compared)
    found, truth = flatten(split.detections, split.annotations)
    scores = finding_scores(*split.compared)
    is_missed = ~truth.difficult & ~(scores >= thresholds[truth.labels])
    areas = np.prod(truth.boxes[:, 2:] - truth.boxes[:, :2], axis=1)
    missed = [
        Mistake(
            image=int(truth.images[n]),
            box=truth.boxes[n],
            label=int(truth.labels[n]),
            text=_describe_missed(split, n, scores[n], truth.boxes[n], truth.labels[n]),
        )
        for n in _take_turns(np.flatnonzero(is_missed), truth.labels, areas)
    ]
    is_wrong = (errors.detection_errors >= 0) & (
        found.scores >= thresholds[found.labels]
    )
    wrong = np.flatnonzero(is_wrong)
    wrong = wrong[np.argsort(-found.scores[wrong], kind="stable")][:NUM_EXAMPLES]
    false = [
        Mistake(
            image=int(found.images[d]),
            box=found.boxes[d],
            label=int(found.labels[d]),
            text=_describe_wrong(
                split, errors, d, found.scores[d], found.labels[d], truth.labels
            ),
        )
        for d in wrong.tolist()
    ]
    return missed, false


def draw(
    split: EvaluatedSplit,
    source: Source,
    mistakes: tuple[Sequence[Mistake], Sequence[Mistake]],
    thresholds: np.ndarray,
) -> Examples:
    """Draws the pictures of mistakes, and lists those that cannot be read.

    Args:
      split: that was evaluated.
      source: of its images.
      mistakes: missed objects and wrong detections.
      thresholds: [L] scores from which detections are drawn.
    """
    pictures: dict[int, tuple[str, str]] = {}
    images: dict[int, np.ndarray | None] = {}
    missing: list[str] = []
    groups: tuple[list[Example], list[Example]] = ([], [])
    for group, chosen in zip(groups, mistakes, strict=True):
        for each in chosen:
            if each.image not in images:
                images[each.image] = _read(source, each.image, missing)
            pixels = images[each.image]
            if pixels is None:
                continue
            if each.image not in pictures:
                image_id = split.annotations[each.image].image_id
                pictures[each.image] = (
                    image_id,
                    _draw_all(split, each.image, pixels, thresholds),
                )
            picture = crop(pixels, each.box, drawing.class_color(each.label))
            group.append(
                Example(text=each.text, crop=to_uri(picture), image=each.image)
            )
    return Examples(
        missed=groups[0], wrong=groups[1], pictures=pictures, missing=missing
    )


def _take_turns(
    chosen: np.ndarray, labels: np.ndarray, areas: np.ndarray
) -> Iterator[int]:
    """Yields the largest of every class, then the second largest, and so on."""
    chosen = chosen[np.argsort(-areas[chosen], kind="stable")]
    turns = np.zeros(len(chosen), int)
    for label in np.unique(labels[chosen]):
        is_of_class = labels[chosen] == label
        turns[is_of_class] = np.arange(is_of_class.sum())
    yield from chosen[np.argsort(turns, kind="stable")][:NUM_EXAMPLES].tolist()


def _describe_missed(
    split: EvaluatedSplit, number: int, score: float, box: np.ndarray, label: int
) -> str:
    height, width = (box[2:] - box[:2]).round().astype(int)
    reason = f"found at {score:.2f}, below the threshold"
    if not np.isfinite(score):
        overlap = split.proposal_iou[-1, number]
        reason = f"best proposal overlaps by IoU {overlap:.2f}"
    return f"{split.class_names[label]}, {width} x {height} pixels: {reason}"


def _describe_wrong(
    split: EvaluatedSplit,
    errors: TIDEErrors,
    number: int,
    score: float,
    label: int,
    object_labels: np.ndarray,
) -> str:
    name = _WRONG[ERRORS[errors.detection_errors[number]]]
    item = errors.detection_objects[number]
    name = name.format(real=split.class_names[object_labels[item]] if item >= 0 else "")
    return f"{split.class_names[label]} {score:.2f}: {name}"


def _read(source: Source, index: int, missing: list[str]) -> np.ndarray | None:
    try:
        return source.read_image(index)
    except UserError as error:
        missing.append(f"A picture is missing: {error}.")
        return None


def _draw_all(
    split: EvaluatedSplit, index: int, pixels: np.ndarray, thresholds: np.ndarray
) -> str:
    """Draws all objects and detections of a picture."""
    found = split.detections[index]
    is_kept = found.scores >= thresholds[found.labels]
    picture = draw_detections(
        pixels,
        detections=ImageDetections(*(values[is_kept] for values in found)),
        ground_truth=split.annotations[index],
        class_names=split.class_names,
    )
    picture.thumbnail((_PICTURE_WIDTH, _PICTURE_WIDTH))
    return to_uri(picture)
