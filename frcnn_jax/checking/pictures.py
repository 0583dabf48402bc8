"""The images that a page shows: those with problems, and those with suspect labels."""

import itertools
from typing import NamedTuple

import numpy as np
from PIL import Image

from frcnn_jax.checking.check import DataCheck
from frcnn_jax.checking.problems import KINDS, UNREADABLE, Problem
from frcnn_jax.checking.scan import ScannedSplit
from frcnn_jax.checking.suspects import Suspect
from frcnn_jax.data.records import Annotation
from frcnn_jax.report.pictures import crop, to_uri
from frcnn_jax.visualization import drawing
from frcnn_jax.visualization.detections import draw_detections

_MAX_PICTURES = 24  # of each kind
_SIDE = 360  # pixels of the longer side of a whole image
_RED = (255, 80, 80)


class Example(NamedTuple):
    """Pictures side by side, and what they show."""

    pictures: list[str]  # data URIs of JPEG
    text: str


class Group(NamedTuple):
    """Problems, or suspects, of a kind."""

    title: str
    note: str
    examples: list[Example]  # the first ones
    others: list[str]  # the rest
    is_wide: bool = False  # whether the pictures are whole images


def show_problems(check: DataCheck, *, is_wrong: bool) -> list[Group]:
    """Shows the mistakes of each kind, or what is merely worth a look.

    Args:
      check: of the data set.
      is_wrong: whether to show the mistakes.
    """
    chosen = [each for each in check.problems if each.is_wrong == is_wrong]
    groups = []
    for kind, of_kind in itertools.groupby(chosen, key=lambda each: each.kind):
        problems = list(of_kind)
        examples: list[Example] = []
        others: list[str] = []
        for problem in problems:
            can_be_drawn = problem.image and kind not in UNREADABLE
            if can_be_drawn and len(examples) < _MAX_PICTURES:
                examples.append(Example(_draw(check, problem), str(problem)))
            else:
                others.append(str(problem))
        title, is_wide = f"{kind} ({len(problems)})", problems[0].box is None
        groups.append(Group(title, KINDS[kind][0], examples, others, is_wide))
    return groups


def show_suspects(check: DataCheck) -> list[Group]:
    """Shows the labels of each split that a detector disputes, the clearest first."""
    groups = []
    for split in check.splits:
        suspects = check.suspects.get(split.name, [])
        for kind, of_kind in itertools.groupby(suspects, key=lambda each: each.kind):
            listed = list(of_kind)
            examples = [_show_suspect(split, s) for s in listed[:_MAX_PICTURES]]
            others = [str(each) for each in listed[_MAX_PICTURES:]]
            title = f"{split.name}: {kind} ({len(listed)})"
            groups.append(Group(title, "", examples, others))
    return groups


def _draw(check: DataCheck, problem: Problem) -> list[str]:
    """Draws both images of a pair, a bad box, or else all objects of an image."""
    splits = {split.name: split for split in check.splits}
    places = [place for place in (problem.image, problem.other) if place is not None]
    images = [splits[each.split].raw.read_image(each.number) for each in places]
    if problem.other is not None:
        return [_thumbnail(Image.fromarray(pixels)) for pixels in images]
    split, pixels = splits[problem.split], images[0]
    objects = _selected_annotation(split, places[0].number)
    if problem.box is None or not np.isfinite(problem.box).all():
        names = split.source.class_names
        picture = draw_detections(pixels, ground_truth=objects, class_names=names)
        return [_thumbnail(picture)]
    box = np.clip(problem.box, 0, pixels.shape[:2] * 2)
    others = () if objects is None else objects.boxes
    return [to_uri(crop(pixels, box, _RED, others))]


def _selected_annotation(split: ScannedSplit, number: int) -> Annotation | None:
    """Returns the objects of an image that the config uses; None if it uses none."""
    if number not in split.selected:
        return None
    return split.source.annotations[split.selected.index(number)]


def _thumbnail(picture: Image.Image) -> str:
    picture.thumbnail((_SIDE, _SIDE))
    return to_uri(picture)


def _show_suspect(split: ScannedSplit, suspect: Suspect) -> Example:
    pixels = split.source.read_image(suspect.image)
    others = split.source.annotations[suspect.image].boxes
    color = drawing.class_color(suspect.label)
    picture = crop(pixels, suspect.box, color, others)
    return Example([to_uri(picture)], f"{suspect.image_id}: {suspect.text}")
