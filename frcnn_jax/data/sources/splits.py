"""Splits by name, the same for every data set in files.

`train` is the format's split of that name, `VOC2007/train` that of the folder
`VOC2007`, `all[:80%]` a random part of a split, and `first+second` two splits joined.
"""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from frcnn_jax.data.sources.files import check_unicode
from frcnn_jax.data.sources.listing import ListedImage, Listing
from frcnn_jax.errors import UserError

_PART = re.compile(
    r"(?P<name>[^\[\]]*)(?P<slice>\[((?P<start>\d{1,3})%)?:((?P<stop>\d{1,3})%)?\])?"
)


def list_split(
    list_images: Callable[[Path, str], Listing], root: Path, split: str, seed: int
) -> Listing:
    """Lists the images of a split.

    Args:
      list_images: lists the images of a split of a folder, in some format.
      root: the folder.
      split: parts joined by `+`. Each is a name, perhaps after a folder in `root` and
        a slash, and perhaps with a slice in percent.
      seed: decides which random images a slice has. `[:80%]` and `[80%:]` of the
        same seed have no image in common.

    Returns:
      The images part by part. Where the parts differ in their classes, all of these,
      sorted.

    Raises:
      UserError: if a part is missing, malformed or empty, or has an image of another.
    """
    listings = [_list_part(list_images, root, part, seed) for part in split.split("+")]
    images = [image for listing in listings for image in listing.images]
    paths = set()
    for image in images:
        if image.path in paths:
            raise UserError(
                f"split {split!r} of {root} has image {image.image_id} more than once"
            )
        paths.add(image.path)
    class_names = [listing.class_names for listing in listings]
    if len(set(class_names)) > 1:
        class_names = [tuple(sorted({name for names in class_names for name in names}))]
    return listings[0]._replace(class_names=class_names[0], images=images)


def shared_parts(first: str, second: str) -> list[str]:
    """Lists the parts of a split, by name and slice, that share images with another.

    Args:
      first: a split.
      second: the split whose parts are listed.
    """
    return [
        part
        for part in second.split("+")
        if any(_overlap(part, other) for other in first.split("+"))
    ]


def _overlap(part: str, other: str) -> bool:
    first, second = _PART.fullmatch(part), _PART.fullmatch(other)
    if first is None or second is None:  # TFDS has other slices, too
        return part == other
    (start, stop), (other_start, other_stop) = _percents(first), _percents(second)
    is_same = first["name"] == second["name"]
    return is_same and start < other_stop and other_start < stop


def _percents(match: re.Match[str]) -> tuple[int, int]:
    """Returns where a part begins and ends."""
    return int(match["start"] or 0), int(match["stop"] or 100)


def _list_part(
    list_images: Callable[[Path, str], Listing], root: Path, part: str, seed: int
) -> Listing:
    match = _PART.fullmatch(part)
    if match is None:
        raise UserError(f"split is {part!r}; expected a name, or as in 'train[:80%]'")
    subfolder, slash, name = match["name"].rpartition("/")
    folder = Path(os.path.normpath(root / subfolder))
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; expected a data set")
    listing = list_images(folder, name)
    images = listing.images
    for class_name in listing.class_names:
        check_unicode(class_name, f"{folder}: a class")
    for image in images:
        check_unicode(image.image_id, f"{folder}: an image")
    if match["slice"]:
        start, stop = _percents(match)
        if not start < stop <= 100:
            raise UserError(f"split is {part!r}; expected rising numbers up to 100%")
        images = _slice(images, start, stop, seed)
    if not images:
        raise UserError(f"split {part!r} of {root} has no images")
    prefix = f"{subfolder}{slash}"
    return listing._replace(
        images=[each._replace(image_id=prefix + each.image_id) for each in images]
    )


def _slice(
    images: list[ListedImage], start: int, stop: int, seed: int
) -> list[ListedImage]:
    """Returns what lies between two percents of a random order, in the old order."""
    # Hashes, unlike NumPy's generators, never change, and adding an image changes the
    # place of the others by one at most.
    ranked = sorted(images, key=lambda image: _hash(seed, image.image_id))
    first, last = (round(len(images) * percent / 100) for percent in (start, stop))
    chosen = {image.image_id for image in ranked[first:last]}
    return [image for image in images if image.image_id in chosen]


def _hash(seed: int, image_id: str) -> bytes:
    return hashlib.sha256(f"{seed} {image_id}".encode()).digest()
