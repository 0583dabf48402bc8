"""Running a detector over a data set: detections, figures, pictures."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from frcnn_jax import ops
from frcnn_jax.config import Config
from frcnn_jax.data import pipeline
from frcnn_jax.data.records import Batch, Source
from frcnn_jax.evaluation import coco, report, voc
from frcnn_jax.evaluation.matching import ImageDetections
from frcnn_jax.visualize import draw_detections

NUM_PICTURES = 12

DetectStep = Callable[[dict[str, Any], Batch], ops.Detections]


def make_detect_step(graphdef: nnx.GraphDef) -> DetectStep:
    """Makes the jitted detection; boxes are in pixels of the original images."""

    @jax.jit
    def detect_step(params: dict[str, Any], batch: Batch) -> ops.Detections:
        detections = nnx.merge(graphdef, params).detect(
            batch.images, batch.image_sizes, batch.scales
        )
        scales = jnp.tile(batch.scales, (1, 2))[:, None]
        return detections._replace(boxes=detections.boxes / scales)

    return detect_step


def detect_all(
    detect_step: DetectStep, params: dict[str, Any], source: Source, config: Config
) -> list[ImageDetections]:
    """Runs the detector over every image, in the order of the source."""
    results = []
    batches = pipeline.evaluation_batches(
        source,
        batch_size=config.batch_size,
        num_workers=config.data.num_workers,
        **pipeline.options(config.data),
    )
    for batch in batches:
        found = jax.device_get(detect_step(params, batch))
        for index in np.flatnonzero(batch.image_mask):
            kept = found.mask[index]
            results.append(
                ImageDetections(
                    found.boxes[index][kept],
                    found.scores[index][kept],
                    found.labels[index][kept],
                )
            )
    return results


def evaluate(
    graphdef: nnx.GraphDef,
    params: dict[str, Any],
    source: Source,
    config: Config,
    work_dir: Path,
) -> dict[str, Any]:
    """Evaluates a detector; writes `evaluation.json` and `pictures/`.

    Returns:
      what `evaluation.json` holds: `voc07_map`, `area_map`, `coco`, `per_class`.
    """
    detections = detect_all(make_detect_step(graphdef), params, source, config)
    compared = detections, source.annotations, len(source.class_names)
    evaluation = report.to_json(
        voc.average_precisions(*compared),
        coco.average_precisions(*compared),
        source.class_names,
    )
    temporary = work_dir / "evaluation.json.tmp"
    temporary.write_text(json.dumps(evaluation, indent=2) + "\n")
    os.replace(temporary, work_dir / "evaluation.json")
    _draw_pictures(detections, source, work_dir / "pictures")
    return evaluation


def _draw_pictures(
    detections: list[ImageDetections], source: Source, folder: Path
) -> None:
    folder.mkdir(exist_ok=True)
    for index, found in enumerate(detections[:NUM_PICTURES]):
        annotation = source.annotations[index]
        picture = draw_detections(
            source.read_image(index),
            detections=found,
            ground_truth=annotation,
            class_names=source.class_names,
        )
        picture.save(folder / f"{Path(annotation.image_id).name}.png")
