"""Photographs of a kind, drawn to time the data pipeline, which reads them as files."""

import contextlib
import csv
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import training
from benchmarks.sections.scales import Canvas
from frcnn_jax.config import DataConfig
from frcnn_jax.data.loader import TrainLoader
from frcnn_jax.data.records import Batch
from frcnn_jax.data.sources import open_source

NUM_PICTURES = 64
SIZE_FACTOR = 5 / 8  # of the canvas: 375 x 500 pixels, as VOC's, become 600 x 800
COARSENESS = 8  # pixels; JPEGs of noise would be several times as large as photographs


@contextlib.contextmanager
def open_batches(
    canvas: Canvas, batch_size: int, num_workers: int
) -> Iterator[Generator[Batch]]:
    """Yields the endless batches of a folder of JPEGs, which goes in the end.

    Args:
      canvas: (height, width) that the pictures are resized to, in pixels.
      batch_size: images per batch.
      num_workers: processes that read; 0 reads in threads.
    """
    with tempfile.TemporaryDirectory() as folder:
        _write_pictures(Path(folder), canvas)
        config = DataConfig(
            source="csv",
            root=folder,
            train_split="train",
            shorter_side=min(canvas),
            longer_side=max(canvas),
            keep_aspect_ratio=False,
            canvases=(canvas,),
            max_objects=training.MAX_BOXES,
            num_workers=num_workers,
        )
        source = open_source(config, "train")
        loader = TrainLoader(source, config, batch_size=batch_size, seed=0)
        with contextlib.closing(loader.batches()) as batches:
            yield batches


def _write_pictures(folder: Path, canvas: Canvas) -> None:
    rng = np.random.default_rng(0)
    height, width = (round(side * SIZE_FACTOR) for side in canvas)
    batch = training.make_batch((height, width), NUM_PICTURES)
    coarse_size = height // COARSENESS, width // COARSENESS, 3
    (folder / "train").mkdir()
    with (folder / "train.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filename", "ymin", "xmin", "ymax", "xmax", "class"])
        for number in range(NUM_PICTURES):
            coarse = rng.integers(0, 256, coarse_size, np.uint8)
            picture = Image.fromarray(coarse).resize((width, height))
            picture.save(folder / "train" / f"{number}.jpg", quality=90)
            mask = batch.box_mask[number]
            for box, label in zip(
                batch.boxes[number, mask], batch.labels[number, mask], strict=True
            ):
                rows.writerow([f"{number}.jpg", *box, label])
