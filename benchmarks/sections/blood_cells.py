"""Trains on BCCD by the recipe of `docs/results.md`, for 12 epochs.

The folder that the variable FRCNN_DATA names holds `BCCD/` and
`vgg16/vgg16_caffe_conv1_to_conv3.npz`.
"""

import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, Task, TimeUp
from benchmarks.sections.scales import TINY, Scale

ROOT = Path(__file__).parents[2]
NUM_IMAGES, NUM_EPOCHS, EPOCHS_BETWEEN = 205, 12, 3
DROP_AFTER = 9  # epochs
NAME = "BCCD"


def tasks(scale: Scale) -> Iterator[Task]:
    for seed in (0,) if scale is TINY else (0, 1, 2):
        size = f"{NUM_EPOCHS} epochs, seed {seed}"
        yield Task(NAME, size, functools.partial(_train, scale, seed, size))


def _train(scale: Scale, seed: int, size: str) -> Iterator[Figure]:
    data = Path(os.environ["FRCNN_DATA"])
    num_images, options = NUM_IMAGES, []
    if scale is TINY:
        num_images = 2
        options += ["--data.limit", num_images, "--model.width", scale.model.width]
    else:
        weights = data / "vgg16" / "vgg16_caffe_conv1_to_conv3.npz"
        options += ["--model.pretrained", weights]
    options += ["--data.root", data / "BCCD", "--data.validation-split", "test"]
    options += ["--seed", seed, "--num-epochs", NUM_EPOCHS, "--max-to-keep", 1]
    options += ["--optimizer.boundaries", DROP_AFTER]
    options += ["--optimizer.boundary-unit", "epochs"]
    options += ["--checkpoint-every", EPOCHS_BETWEEN * num_images]
    options += ["--config", "configs/bccd_vgg16.py", "--log-every", 5]
    with tempfile.TemporaryDirectory() as work_dir:
        command = [sys.executable, "train.py", *map(str, options)]
        try:
            subprocess.run(
                [*command, "--work-dir", work_dir],
                cwd=ROOT,
                check=True,
                stdout=subprocess.DEVNULL,
            )
        except TimeUp:
            yield _read(Path(work_dir), size, num_images)
            raise
        yield _read(Path(work_dir), size, num_images)


def _read(work_dir: Path, size: str, num_images: int) -> Figure:
    """Returns the figures of a run, finished or not."""
    lines = (work_dir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    notes = [
        f"epoch {row['step'] // num_images}: "
        f"VOC07 AP {100 * row['validation_voc07_map']:.1f}"
        for row in rows
        if "validation_voc07_map" in row
    ]
    evaluation = work_dir / "evaluation.json"
    if evaluation.exists():
        figures = json.loads(evaluation.read_text())
        notes.append(f"area AP {100 * figures['area_map']:.1f}")
        notes += [
            f"{name} {100 * each['voc07_ap']:.1f}"
            for name, each in figures["per_class"].items()
        ]
    rates = [row["images_per_second"] for row in rows if "images_per_second" in row]
    return Figure(
        NAME, size, images_per_second=statistics.median(rates), note=", ".join(notes)
    )
