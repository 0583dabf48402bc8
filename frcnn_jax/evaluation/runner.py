"""Running a detector over a data set: detections, figures, pictures."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from frcnn_jax import ops, parallel
from frcnn_jax.config import Config
from frcnn_jax.data import pipeline
from frcnn_jax.data.records import Batch, Source
from frcnn_jax.evaluation import coco, report, voc
from frcnn_jax.evaluation.matching import ImageDetections
from frcnn_jax.visualize import draw_detections
from frcnn_jax.writing import replace_text, writing

NUM_PICTURES = 12

DetectStep = Callable[[dict[str, Any], Batch], tuple[ops.Detections, Array, Array]]


def make_detect_step(graphdef: nnx.GraphDef, mesh: Mesh) -> DetectStep:
    """Makes the jitted detection; boxes are in pixels of the original images.

    It takes parameters and a batch; see `parallel.each_image`.
    """

    def detect(params: dict[str, Any], batch: Batch) -> ops.Detections:
        detections = nnx.merge(graphdef, params).detect(
            batch.images, batch.image_sizes, batch.scales
        )
        scales = jnp.tile(batch.scales, (1, 2))[:, None]
        return detections._replace(boxes=detections.boxes / scales)

    return parallel.each_image(detect, mesh)


def divided_batches(source: Source, config: Config, mesh: Mesh) -> Iterator[Batch]:
    """Yields every image once, in batches divided among the devices."""
    micro_batch = config.batch_size // config.micro_batches
    batches = pipeline.evaluation_batches(
        source,
        config.data,
        batch_size=-(-micro_batch // mesh.size) * mesh.size,
        **parallel.shard(),
    )
    for batch in batches:
        yield parallel.divide(batch, mesh)


def detect_all(
    detect_step: DetectStep,
    params: dict[str, Any],
    source: Source,
    config: Config,
    mesh: Mesh,
) -> list[ImageDetections]:
    """Runs the detector over every image; results are in the order of the source."""
    results = {}
    for batch in divided_batches(source, config, mesh):
        found, indices, mask = jax.device_get(detect_step(params, batch))
        for row in np.flatnonzero(mask):
            kept = found.mask[row]
            results[int(indices[row])] = ImageDetections(
                found.boxes[row][kept], found.scores[row][kept], found.labels[row][kept]
            )
    return [results[index] for index in range(len(source.annotations))]


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

    Raises:
      UserError: if an image cannot be read, or a file not be written.
    """
    mesh = parallel.make_mesh()
    detect_step = make_detect_step(graphdef, mesh)
    params = parallel.replicate(params, mesh)
    detections = detect_all(detect_step, params, source, config, mesh)
    compared = detections, source.annotations, len(source.class_names)
    evaluation = report.to_json(
        voc.average_precisions(*compared),
        coco.average_precisions(*compared),
        source.class_names,
    )
    if parallel.is_first():
        text = json.dumps(evaluation, indent=2) + "\n"
        replace_text(work_dir / "evaluation.json", text)
        with writing(work_dir / "pictures"):
            _draw_pictures(detections, source, work_dir / "pictures")
    parallel.wait_for_all("evaluated")  # for as long as drawing may take
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
