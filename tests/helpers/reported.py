"""Run directories with an evaluation that no detector has made."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from frcnn_jax.config.loading import save_config
from frcnn_jax.data.records import ImageDetections
from frcnn_jax.data.sources import open_source
from frcnn_jax.evaluation import evaluated_split, report
from frcnn_jax.evaluation.evaluated_split import EvaluatedSplit
from tests.helpers import splits, tiny
from tests.helpers.random_images import detect_randomly


def shapes_split(seed: int = 0) -> EvaluatedSplit:
    """Detects randomly in the drawn test images."""
    source = open_source(tiny.DATA, "test")
    random = np.random.default_rng(seed)
    found = detect_randomly(random, source.annotations, len(source.class_names), 3)
    return splits.evaluated(found, source.annotations, tuple(source.class_names))


def without_detections(split: EvaluatedSplit) -> EvaluatedSplit:
    nothing = ImageDetections(
        np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32)
    )
    return dataclasses.replace(split, detections=[nothing] * len(split.detections))


def without_objects(split: EvaluatedSplit) -> EvaluatedSplit:
    empty = [
        dataclasses.replace(
            each,
            boxes=np.zeros((0, 4), np.float32),
            labels=np.zeros(0, np.int32),
            difficult=np.zeros(0, bool),
        )
        for each in split.annotations
    ]
    evaluated = splits.evaluated(split.detections, empty, split.class_names)
    fingerprints = evaluated.fingerprints | {"data": "1" * 16}
    return dataclasses.replace(evaluated, fingerprints=fingerprints)


def write_run(
    folder: Path,
    evaluated: EvaluatedSplit,
    name: str = "evaluation",
    **facts: str | int,
) -> Path:
    """Writes what a run leaves, and what an evaluation leaves, into a directory."""
    folder.mkdir(exist_ok=True)
    save_config(tiny.CONFIG, folder / "config.json")
    rows = [
        {"step": step, "loss": 3.0 / step, "bad_steps": 0, "images_per_second": 2.0}
        for step in range(2, 80, 2)
    ]
    rows[-1] |= {"validation_loss": 0.5, "validation_voc07_map": 0.25}
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    evaluated_split.save(evaluated, folder / f"{name}.npz")
    evaluation = report.to_json(evaluated) | facts
    (folder / f"{name}.json").write_text(json.dumps(evaluation))
    return folder
