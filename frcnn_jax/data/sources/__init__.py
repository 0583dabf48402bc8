"""Data sets, each behind the same small interface (`frcnn_jax.data.records.Source`)."""

import logging
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Literal, cast

from frcnn_jax.config import DataConfig
from frcnn_jax.data.records import Source, abbreviate
from frcnn_jax.data.sources import coco, csv_file, splits, voc, yolo
from frcnn_jax.data.sources.folder import FolderSource
from frcnn_jax.data.sources.listing import ALL
from frcnn_jax.data.sources.raw import RawSource, check_source
from frcnn_jax.data.sources.selection import select
from frcnn_jax.data.sources.shapes import ShapesSource
from frcnn_jax.data.sources.tfds import TFDSSource
from frcnn_jax.errors import UserError
from frcnn_jax.files import expand_home

Format = Literal["coco", "yolo", "voc", "csv"]

# Each has `find_splits(root)` and `list_images(root, split)`.
FORMATS: dict[Format, ModuleType] = {
    "coco": coco,
    "yolo": yolo,
    "voc": voc,
    "csv": csv_file,
}

_logger = logging.getLogger(__name__)


def open_source(config: DataConfig, split: str) -> Source:
    """Opens a split of the data set that the config names.

    Args:
      config: which data set, where it is, and which of its images and objects to take.
      split: name of the split, as the source has it.

    Raises:
      UserError: if it is missing or broken.
    """
    source = select(_open_whole(config, split), config)
    if not source.class_names:
        raise UserError(
            f"{config.root} has no labeled objects; expected some, or data.class_names"
        )
    return source


def _open_whole(config: DataConfig, split: str) -> Source:
    """Opens a split without selecting images and objects."""
    raw = open_raw(config, split)
    # Drawn shapes need no check.
    if isinstance(raw, ShapesSource):
        return raw
    return check_source(raw, skip_broken=config.skip_broken)


def open_raw(config: DataConfig, split: str) -> RawSource:
    """Opens a split as it is annotated.

    Args:
      config: which data set, and where it is.
      split: name of the split, as the source has it.

    Raises:
      UserError: if it is missing, or an annotation is malformed.
    """
    if config.source == "shapes":
        return _open_shapes(config, split)
    if config.source == "tfds":
        return TFDSSource(config.name, split, data_dir=config.root or None)
    list_images, root = FORMATS[config.source].list_images, expand_home(config.root)
    return FolderSource(splits.list_split(list_images, root, split, config.split_seed))


def open_rest(config: DataConfig, opened: Sequence[RawSource]) -> dict[str, RawSource]:
    """Opens the images of a folder that are in none of some splits.

    Args:
      config: which data set, and where it is.
      opened: the splits.

    Returns:
      By name; none if the config limits the number of images. There is a warning for a
      split that cannot be read.
    """
    if config.source in ("tfds", "shapes") or config.limit is not None:
        return {}
    data_format, root = FORMATS[cast(Format, config.source)], expand_home(config.root)
    seen = {p for each in opened for p in cast(FolderSource, each).paths}
    found = data_format.find_splits(root)
    rest: dict[str, RawSource] = {}
    for split in [ALL] if ALL in found else found:
        try:
            listing = splits.list_split(data_format.list_images, root, split, 0)
            images = [image for image in listing.images if image.path not in seen]
            if images:
                source = FolderSource(listing._replace(images=images))
                rest["unused" if split == ALL else f"unused {split}"] = source
                seen |= set(source.paths)
        except UserError as error:
            _logger.warning("did not look at split %r: %s", split, error)
    return rest


def _open_shapes(config: DataConfig, split: str) -> ShapesSource:
    sizes = {
        config.train_split: config.num_train_images,
        config.test_split: config.num_test_images,
    }
    if split not in sizes:
        raise UserError(
            f"split {split!r} of the shapes is unknown, expected one of "
            f"{', '.join(sizes)}"
        )
    return ShapesSource(
        num_images=sizes[split], image_size=config.shapes_size, seed=0, split=split
    )


def warn_of_shared_images(config: DataConfig, sources: Mapping[str, Source]) -> None:
    """Warns of images that are both trained on and evaluated on.

    Args:
      config: names the splits.
      sources: the opened splits, `train` and perhaps `validation` and `test`. Those of
        TFDS need not have ids, and are compared by the names of the splits.
    """
    train = {annotation.image_id for annotation in sources["train"].annotations}
    for name in [name for name in sources if name != "train"]:
        if config.source == "tfds":
            split = getattr(config, f"{name}_split")
            shared = splits.shared_parts(config.train_split, split)
        else:
            ids = (annotation.image_id for annotation in sources[name].annotations)
            shared = [image_id for image_id in ids if image_id in train]
        if shared:
            _logger.warning(
                "data.train_split and data.%s_split share %s: figures on training "
                "images overestimate the detector",
                name,
                abbreviate(shared),
            )
