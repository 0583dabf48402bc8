"""Lists what is wrong with a data set, and what is merely worth a look."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from frcnn_jax.checking.duplicates import Pair, find_pairs
from frcnn_jax.checking.scan import ScannedSplit
from frcnn_jax.config import DataConfig
from frcnn_jax.data.augmentation import enlargement_note, largest_size
from frcnn_jax.data.records import has_objects
from frcnn_jax.data.transforms import choose_canvas

# Kinds of problems, the consequence of each, and whether it is a mistake: the others
# may be intended. Problems of images that the config does not use are only notes.
KINDS = {
    "broken image": ("training stops at it", True),
    "skipped image": ("is broken, and training leaves it out", False),
    "dropped box": ("is ignored in training and evaluation", True),
    "clipped box": ("is cut at the edges of its image", True),
    "other size": ("the boxes may be those of an image of another size", True),
    "too many objects": ("training refuses the image", True),
    "no canvas": ("training refuses the image", True),
    "shared image": ("is trained on and evaluated on", True),
    "no classes": ("training refuses the split", True),
    "other classes": ("training refuses the split", True),
    "no images": ("training refuses the split", True),
    "no objects": ("training refuses the split", True),
    "repeated image": ("has the pixels of another one", False),
    "similar image": ("is nearly the same as another one", False),
}
UNREADABLE = ("broken image", "skipped image")


class Place(NamedTuple):
    """An image of a data set."""

    split: str
    number: int  # of the image in the raw source
    image_id: str
    annotation: str  # the file, and the place in it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is wrong, or worth a look."""

    kind: str  # a key of KINDS
    is_wrong: bool
    split: str
    text: str
    image: Place | None = None
    box: list[float] | None = None  # as annotated
    other: Place | None = None  # the image that is repeated

    def __str__(self) -> str:
        """Describes the problem in one line."""
        if self.image is None:
            return f"{self.split}: {self.text}"
        if self.kind in UNREADABLE:  # the reason names the file
            return f"{self.image.image_id} ({self.split}): {self.text}"
        text = f"{self.image.image_id} ({self.split}) {self.text}"
        if self.box is not None:
            y_min, x_min, y_max, x_max = (f"{edge:g}" for edge in self.box)
            text += f": x {x_min} to {x_max}, y {y_min} to {y_max}"
        return f"{text} ({self.image.annotation})"

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields for JSON, which cannot hold a box that is not finite."""
        is_finite = self.box is not None and np.isfinite(self.box).all()
        return dataclasses.asdict(self) | {
            "box": self.box if is_finite else None,
            "image": self.image and self.image._asdict(),
            "other": self.other and self.other._asdict(),
        }


def find_problems(splits: Sequence[ScannedSplit], data: DataConfig) -> list[Problem]:
    """Lists the problems of all splits, by kind.

    Args:
      splits: of the data set, those that the config uses first.
      data: how images are resized, the canvases, and room for how many objects.
    """
    found = [
        *itertools.chain.from_iterable(_check_images(split, data) for split in splits),
        *itertools.chain.from_iterable(_check_room(split, data) for split in splits),
        *_check_use(splits, data),
        *_find_duplicates(splits),
    ]
    return sorted(found, key=lambda problem: list(KINDS).index(problem.kind))


def _check_images(split: ScannedSplit, data: DataConfig) -> Iterator[Problem]:
    for image, broken in split.broken.items():
        is_skipped = data.skip_broken and broken.is_unreadable
        kind = "skipped image" if is_skipped else "broken image"
        yield _problem(split, kind, image, broken.reason)
    for bad in split.bad_boxes:
        kind = "dropped box" if bad.is_dropped else "clipped box"
        text = f"has a box of {split.raw.class_names[bad.label]} that {bad.reason}"
        yield _problem(split, kind, bad.image, text, box=bad.box.tolist())
    for image, annotation in zip(split.images, split.annotations, strict=True):
        if split.raw.states_other_size(image, annotation):
            stated, real = split.raw.stated_size(image), annotation.image_size
            text = f"is annotated as {_size(stated)} pixels, but has {_size(real)}"
            yield _problem(split, "other size", image, text)


def _check_room(split: ScannedSplit, data: DataConfig) -> Iterator[Problem]:
    """Checks that images and objects fit into batches, if they are used."""
    if not split.uses:
        return
    data = split.as_used(data)
    for image, annotation in zip(split.selected, split.source.annotations, strict=True):
        num_objects = int((~annotation.difficult).sum())
        if num_objects > data.max_objects:
            text = f"has {num_objects} objects, but max_objects is {data.max_objects}"
            yield _problem(split, "too many objects", image, text)
        size = largest_size(annotation.image_size, data)
        if choose_canvas(size, data.canvases) is None:
            note = enlargement_note(annotation.image_size, data)
            text = f"has {_size(size)} pixels after resizing{note}, too many for any "
            text += "canvas"
            yield _problem(split, "no canvas", image, text)


def _check_use(splits: Sequence[ScannedSplit], data: DataConfig) -> Iterator[Problem]:
    """Checks the splits against one another."""
    names = splits[0].source.class_names
    for split in splits:
        if "train" in split.uses and len(split.uses) > 1:
            text = f"the split is used for {' and '.join(split.uses)}"
            yield _problem(split, "shared image", None, text)
        own = split.source.class_names
        if split.uses and not own:
            text = "has no labeled objects, and data.class_names is not set"
            yield _problem(split, "no classes", None, text)
        elif split.uses and own != names:
            text = f"has the classes {', '.join(own)}, not {', '.join(names)}"
            yield _problem(split, "other classes", None, text)
        elif split.uses and not split.selected:
            if data.skip_broken:  # otherwise training stops at the first one
                yield _problem(split, "no images", None, "has no readable image")
        elif "train" in split.uses and not has_objects(split.source):
            yield _problem(split, "no objects", None, "has no objects to learn from")


def _find_duplicates(splits: Sequence[ScannedSplit]) -> Iterator[Problem]:
    for number, split in enumerate(splits):
        for earlier in splits[:number]:
            for pair in find_pairs(split.hashes, earlier.hashes):
                yield _describe_pair(split, earlier, pair)
        for pair in find_pairs(split.hashes):
            yield _describe_pair(split, split, pair)


def _describe_pair(split: ScannedSplit, earlier: ScannedSplit, pair: Pair) -> Problem:
    image, other = split.images[pair.image], earlier.images[pair.other]
    is_shared = "train" in earlier.uses and split.uses and split is not earlier
    kind = "similar image"
    if pair.is_exact:
        kind = "shared image" if is_shared else "repeated image"
    says = "has the same pixels as" if pair.is_exact else "looks like"
    text = f"{says} {earlier.raw.name(other)} ({earlier.name})"
    return _problem(split, kind, image, text, other=_place(earlier, other))


def _problem(
    split: ScannedSplit,
    kind: str,
    image: int | None,
    text: str,
    *,
    box: list[float] | None = None,
    other: Place | None = None,
) -> Problem:
    return Problem(
        kind=kind,
        is_wrong=KINDS[kind][1] and bool(split.uses),
        split=split.name,
        text=text,
        image=None if image is None else _place(split, image),
        box=box,
        other=other,
    )


def _place(split: ScannedSplit, image: int) -> Place:
    return Place(split.name, image, split.raw.name(image), split.raw.place(image))


def _size(size: Sequence[int] | None) -> str:
    return "x".join(map(str, size or ()))
