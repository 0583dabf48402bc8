"""Reads every image and annotation of a data set once."""

import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from frcnn_jax.checking.duplicates import ImageHash, hash_image
from frcnn_jax.checking.progress import show_progress
from frcnn_jax.config import DataConfig
from frcnn_jax.data.records import Annotation, BadBox, Source, check_boxes
from frcnn_jax.data.sources import open_raw, open_rest
from frcnn_jax.data.sources.raw import CheckedSource, RawSource
from frcnn_jax.data.sources.selection import SelectedSource
from frcnn_jax.errors import UserError


class Broken(NamedTuple):
    """Why an image cannot be used."""

    reason: str
    is_unreadable: bool  # else its annotation is of other pixels


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ScannedSplit:
    """A split after all of it has been read. Indices are those of `raw`."""

    name: str
    uses: tuple[str, ...]  # train, validation, test; none if the config does not use it
    raw: RawSource
    broken: dict[int, Broken]  # by image
    images: list[int]  # the others
    annotations: list[Annotation]  # of the others, as they are annotated
    hashes: list[ImageHash]  # of the others
    bad_boxes: list[BadBox]
    source: Source  # what the config selects of the good images and boxes
    selected: list[int]  # the images of `source`

    def as_used(self, data: DataConfig) -> DataConfig:
        """Returns a config without augmentation, unless the split is trained on."""
        return data if "train" in self.uses else data.without_augmentation()


class _Readable(NamedTuple):
    annotation: Annotation
    hash: ImageHash


def scan(data: DataConfig) -> list[ScannedSplit]:
    """Reads the splits of a config, and the images that its folder has besides.

    Args:
      data: which data set, and which of its images and objects.

    Raises:
      UserError: if a split is missing, an annotation is malformed, or the data set has
        other classes than the config says.
    """
    uses: dict[str, list[str]] = {}
    for use in ("train", "validation", "test"):
        if split := getattr(data, f"{use}_split"):
            uses.setdefault(split, []).append(use)
    raw = {split: open_raw(data, split) for split in uses}
    rest = open_rest(data, list(raw.values()))
    return [
        _scan_split(split, tuple(uses.get(split, ())), source, data)
        for split, source in (raw | rest).items()
    ]


def _scan_split(
    name: str, uses: tuple[str, ...], raw: RawSource, data: DataConfig
) -> ScannedSplit:
    num_images = len(raw)
    if data.limit and not (data.skip_empty_images or data.skip_broken):
        num_images = min(num_images, data.limit)
    scanned = _scan_images(name, raw, num_images)
    broken = {i: each for i, each in enumerate(scanned) if isinstance(each, Broken)}
    good = {i: each for i, each in enumerate(scanned) if isinstance(each, _Readable)}
    images = list(good)
    annotations = [each.annotation for each in good.values()]
    kept, bad_boxes = check_boxes(annotations, empty_side=raw.empty_side)
    source: Source = CheckedSource(raw, images, kept)
    selected = images
    if uses:
        source = SelectedSource(source, data)
        selected = [images[index] for index in source.indices]
    return ScannedSplit(
        name=name,
        uses=uses,
        raw=raw,
        broken=broken,
        images=images,
        annotations=annotations,
        hashes=[each.hash for each in good.values()],
        bad_boxes=[bad._replace(image=images[bad.image]) for bad in bad_boxes],
        source=source,
        selected=selected,
    )


def _scan_images(
    name: str, raw: RawSource, num_images: int
) -> Sequence[_Readable | Broken]:
    """Reads images in threads; returns the reason for those that are broken."""

    def read(index: int) -> _Readable | Broken:
        try:
            image = raw.read_image(index)
        except UserError as error:
            return Broken(str(error), is_unreadable=True)
        try:
            return _Readable(raw.annotate(index), hash_image(image))
        except UserError as error:
            return Broken(str(error), is_unreadable=False)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        scanned = threads.map(read, range(num_images))
        return list(show_progress(scanned, f"reading {name}", num_images))
