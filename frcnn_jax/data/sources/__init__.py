"""Data sets, each behind the same small interface (`frcnn_jax.data.records.Source`)."""

import logging

from frcnn_jax.config import DataConfig
from frcnn_jax.data.records import Source
from frcnn_jax.data.sources.shapes import ShapesSource
from frcnn_jax.data.sources.tfds import TFDSSource
from frcnn_jax.data.sources.voc import VOCSource
from frcnn_jax.errors import UserError

_logger = logging.getLogger(__name__)


def open_source(config: DataConfig, split: str) -> Source:
    """Opens a split of the data set that the config names.

    Args:
      config: which data set, and where it is.
      split: name of the split, as the source has it.

    Raises:
      UserError: if it is missing or broken.
    """
    if config.source == "shapes":
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
            num_images=sizes[split],
            image_size=config.shapes_size,
            seed=0,
            split=split,
            class_names=config.class_names,
        )
    if config.source == "tfds":
        return TFDSSource(
            config.name,
            split,
            data_dir=config.root or None,
            class_names=config.class_names,
            skip_broken=config.skip_broken,
        )
    return VOCSource(
        config.root,
        split,
        class_names=config.class_names,
        skip_broken=config.skip_broken,
    )


def warn_of_shared_splits(config: DataConfig) -> None:
    """Warns of splits, or parts of them, that are both trained on and evaluated on."""
    trained = set(config.train_split.split("+"))
    for name in ("validation_split", "test_split"):
        shared = trained & set(getattr(config, name).split("+"))
        if shared:
            _logger.warning(
                "data.train_split and data.%s share %s: figures of images that are "
                "trained on do not tell how good a detector is",
                name,
                ", ".join(sorted(shared)),
            )
