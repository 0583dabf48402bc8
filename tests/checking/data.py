"""A small data set whose pictures differ, written on the spot."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from frcnn_jax.config import Config, DataConfig, ModelConfig
from tests.helpers.voc_folder import VOCFolder, voc_object

SIZE = (60, 80)


def picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """Draws clouds: those of different seeds look different."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)


class Photos(VOCFolder):
    """A folder in VOC format, with the splits train and test."""

    def put(
        self, name: str, *objects: str, seed: int, size: tuple[int, int] = SIZE
    ) -> None:
        """Writes a picture and its `<object>` elements."""
        self.add(name, objects, size=size, suffix=".png")
        picture(seed, size).save(self.image(name, ".png"))

    def config(self, **fields: object) -> Config:
        data = {"canvases": ((64, 96), (96, 64)), "shorter_side": 60} | fields
        return Config(
            data=DataConfig(
                source="voc",
                root=str(self.root),
                train_split="train",
                longer_side=80,
                **data,
            ),
            model=ModelConfig(anchor_scales=(1.0, 2.0)),
        )


def cat(x_min: object = 11, y_min: object = 6, x_max: object = 50, y_max: object = 40):
    return voc_object("cat", x_min, y_min, x_max, y_max)


def good_photos(root: Path, names: Sequence[str] = ("a", "b", "c", "d")) -> Photos:
    """Writes pictures without a mistake; the first half is the split train."""
    photos = Photos(root)
    for seed, name in enumerate(names):
        photos.put(name, cat(), voc_object("dog", 2, 2, 30, 60), seed=seed)
    photos.split("train", names[: len(names) // 2])
    photos.split("test", names[len(names) // 2 :])
    return photos
