"""Times the data pipeline beside PyTorch's: `python -m benchmarks.data`.

First the stages of an image, in one thread. Then batches by number of worker processes,
ours and those of a PyTorch DataLoader in turn. The peer does the same work as usual:
PIL decodes and resizes, a collate function pads images and boxes to the canvas. It gets
the order and the flips of our sampler, so its batches must have the same bits.

Figures are medians. `FRCNN_DATA` names the folder that has BCCD and VOC2007.
"""

import argparse
import dataclasses
import functools
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

from benchmarks.timing import environment
from frcnn_jax.config import DataConfig
from frcnn_jax.data import transforms
from frcnn_jax.data.loader import TrainLoader, choose_canvases, evaluation_batches
from frcnn_jax.data.records import Batch, Source, empty_batch
from frcnn_jax.data.sampler import BatchSampler
from frcnn_jax.data.sources import open_source

SPLITS = {"BCCD": "train", "VOC2007": "trainval"}
NUM_WORKERS = (0, 1, 2)
SEED = 0
# Images that may have been read before a turn begins, and are not counted.
NUM_AHEAD = 32


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--num-images", type=int, default=96, help="of a repeat")
    parser.add_argument("--batch-size", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)  # as in a DataLoader's workers; more are slower here
    print(
        f"{environment()}, Pillow {PIL.__version__}, batches of {args.batch_size}, "
        f"medians of {args.repeats}"
    )
    for name, split in SPLITS.items():
        config = DataConfig(root=str(Path(os.environ["FRCNN_DATA"], name)))
        source = open_source(config, split)
        print(f"\n{name}, {len(source.annotations)} images\n")
        print_stages(source, config, args.num_images)
        print("\n| workers | ours, images/s | peer's | ours / peer's | ours cached |")
        print("|---:|---:|---:|---:|---:|")
        for num_workers in NUM_WORKERS:
            ours, peer, cached = compare(source, config, num_workers, args)
            row = f"{ours:.0f} | {peer:.0f} | {ours / peer:.2f} | {cached:.0f}"
            print(f"| {num_workers} | {row} |", flush=True)


def print_stages(source: Source, config: DataConfig, num_images: int) -> None:
    """Times what is done to an image, one stage after the other."""
    seconds: dict[str, list[float]] = {}

    def timed(stage: str, function: Callable, *args: Any, **options: Any) -> Any:
        begin = time.perf_counter()
        result = function(*args, **options)
        seconds.setdefault(stage, []).append(time.perf_counter() - begin)
        return result

    sizes = {
        "shorter_side": config.shorter_side,
        "longer_side": config.longer_side,
        "keep_aspect_ratio": config.keep_aspect_ratio,
    }
    factors = np.array([1.1, 0.9, 1.1])
    canvases = choose_canvases(source, config)
    for index in range(min(num_images, len(canvases))):
        encoded = timed("read the file", source.read_encoded, index)
        decoded = timed("decode", encoded.decode)
        size = source.annotations[index].image_size
        new_size = transforms.resized_size(size, **sizes)
        image = timed(
            "resize", transforms.resize_part, decoded, (0, 0, *size), new_size
        )
        timed("change the colors", transforms.adjust_colors, image, factors)
        canvas = config.canvases[canvases[index]]
        timed("make a batch", make_batch, image, canvas)
        timed("flip and make a batch", make_batch, image[:, ::-1], canvas)
    print("| stage | ms | images/s |\n|---|---:|---:|")
    for stage, durations in seconds.items():
        median = statistics.median(durations)
        print(f"| {stage} | {median * 1e3:.2f} | {1 / median:,.0f} |")


def make_batch(image: np.ndarray, canvas: tuple[int, int]) -> None:
    batch = empty_batch(1, canvas, max_objects=1)
    batch.images.view("V3")[0, : image.shape[0], : image.shape[1]] = image.view("V3")


def compare(
    source: Source, config: DataConfig, num_workers: int, args: argparse.Namespace
) -> list[float]:
    """Returns images per second: of ours, of the peer, of ours with a full cache."""
    config = dataclasses.replace(config, num_workers=num_workers)
    with tempfile.TemporaryDirectory() as folder:
        cached = dataclasses.replace(config, image_cache=folder)
        list(evaluation_batches(source, cached, batch_size=1))
        ours, ours_cached = (
            TrainLoader(source, each, batch_size=args.batch_size, seed=SEED).batches()
            for each in (config, cached)
        )
        peer = iter(peer_loader(source, config, args.batch_size))
        loaders = [ours, peer, ours_cached]
        assert_same(*(list(itertools.islice(each, 4)) for each in (ours, peer)))
        seconds = time_in_turn(loaders, args)
        ours.close()
        ours_cached.close()
    return [args.num_images / each for each in seconds]


def time_in_turn(loaders: list[Iterator], args: argparse.Namespace) -> list[float]:
    """Returns the median seconds that each takes for the images of a repeat."""
    seconds = [[] for _ in loaders]
    for _ in range(args.repeats):
        for loader, durations in zip(loaders, seconds, strict=True):
            take(loader, -(-NUM_AHEAD // args.batch_size))
            begin = time.perf_counter()
            take(loader, args.num_images // args.batch_size)
            durations.append(time.perf_counter() - begin)
    return [statistics.median(durations) for durations in seconds]


def take(batches: Iterator, count: int) -> None:
    for _ in itertools.islice(batches, count):
        pass


def assert_same(ours: list[Batch], peers: list[tuple]) -> None:
    for batch, (images, boxes, labels, mask) in zip(ours, peers, strict=True):
        np.testing.assert_array_equal(batch.images, images)
        np.testing.assert_allclose(batch.boxes, boxes, rtol=1e-6)
        np.testing.assert_array_equal(batch.labels, labels)
        np.testing.assert_array_equal(batch.box_mask, mask)


def peer_loader(
    source: Source, config: DataConfig, batch_size: int
) -> torch.utils.data.DataLoader:
    sampler = BatchSampler(choose_canvases(source, config), batch_size, SEED)
    planned = map(sampler.batch, itertools.count())
    return torch.utils.data.DataLoader(
        PeerDataset(source, config),
        batch_sampler=(
            [
                (index, draw < config.flip_probability, each.canvas_index)
                for index, draw in zip(each.indices, each.draws, strict=True)
            ]
            for each in planned
        ),
        num_workers=config.num_workers,
        multiprocessing_context="spawn" if config.num_workers else None,
        collate_fn=functools.partial(collate, config),
    )


class PeerDataset(torch.utils.data.Dataset):
    """Reads, resizes and flips an image, as data sets of PyTorch do."""

    def __init__(self, source: Source, config: DataConfig) -> None:
        """Lists the images' files."""
        self.source, self.config = source, config
        count = len(source.annotations)
        self.paths = [image_path(source, config, index) for index in range(count)]

    def __getitem__(self, key: tuple) -> tuple:
        index, flip, canvas_index = key
        image = Image.open(self.paths[index]).convert("RGB")
        height, width = transforms.resized_size(
            (image.height, image.width),
            shorter_side=self.config.shorter_side,
            longer_side=self.config.longer_side,
        )
        scale_y, scale_x = height / image.height, width / image.width
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        if flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        annotation = self.source.annotations[index]
        is_easy = torch.from_numpy(~annotation.difficult)
        boxes = torch.from_numpy(annotation.boxes)[is_easy]
        boxes = boxes * torch.tensor([scale_y, scale_x] * 2)
        if flip:
            boxes[:, [1, 3]] = width - boxes[:, [3, 1]]
        labels = torch.from_numpy(annotation.labels)[is_easy]
        return torch.from_numpy(np.array(image)), boxes, labels, canvas_index


def collate(config: DataConfig, examples: list[tuple]) -> tuple[torch.Tensor, ...]:
    """Pads images to their canvas, and boxes to their greatest number."""
    canvas = config.canvases[examples[0][3]]
    count, max_objects = len(examples), config.max_objects
    images = torch.zeros((count, *canvas, 3), dtype=torch.uint8)
    boxes = torch.zeros((count, max_objects, 4))
    labels = torch.zeros((count, max_objects), dtype=torch.int32)
    mask = torch.zeros((count, max_objects), dtype=torch.bool)
    for row, (image, its_boxes, its_labels, _) in enumerate(examples):
        images[row, : image.shape[0], : image.shape[1]] = image
        boxes[row, : len(its_boxes)] = its_boxes
        labels[row, : len(its_boxes)] = its_labels
        mask[row, : len(its_boxes)] = True
    return images, boxes, labels, mask


def image_path(source: Source, config: DataConfig, index: int) -> Path:
    name = f"{source.annotations[index].image_id}.jpg"
    return Path(config.root, "JPEGImages", name)


if __name__ == "__main__":
    main()
