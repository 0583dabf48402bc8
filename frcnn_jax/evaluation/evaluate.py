"""Evaluation: one pass of a detector over a split, and the figures that follow.

It serves the validation during training, the evaluation at a run's end, and `frcnn
evaluate`.
"""

import dataclasses
import json
import logging
import math
import operator
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from PIL import Image

from frcnn_jax import distributed, ops, run_dir
from frcnn_jax.config import Config, ModelConfig
from frcnn_jax.config.detector_spec import make_spec
from frcnn_jax.config.loading import read_config
from frcnn_jax.config.preprocessing import check_preprocessing
from frcnn_jax.data.loader import evaluation_batches
from frcnn_jax.data.records import (
    Batch,
    ImageDetections,
    Source,
    check_classes,
    fingerprint,
)
from frcnn_jax.data.sources import open_source
from frcnn_jax.detector import Detector, detect_in_original_pixels
from frcnn_jax.errors import UserError
from frcnn_jax.evaluation import evaluated_split, report, voc
from frcnn_jax.evaluation.anchors import best_anchor_iou
from frcnn_jax.evaluation.environment import describe_environment
from frcnn_jax.evaluation.evaluated_split import (
    ANCHOR_SCALES,
    EvaluatedSplit,
    best_proposal_iou,
)
from frcnn_jax.files import (
    check_new_file,
    free_name,
    os_errors_as_user_errors,
    replace_text,
)
from frcnn_jax.models import Losses
from frcnn_jax.models.faster_rcnn import image_keys
from frcnn_jax.models.parameters import Params, abstract_detector, parameter_shapes
from frcnn_jax.models.vgg16 import STRIDE
from frcnn_jax.visualization.detections import draw_detections
from frcnn_jax.weights.checkpoints import (
    BEST_METRIC,
    find_step,
    list_steps,
    read_source,
)
from frcnn_jax.weights.record import Weights, resolve_preprocessing
from frcnn_jax.weights.report import describe

NUM_PICTURES = 12

# Of every validation; few and small, as there may be many validations.
NUM_VALIDATION_PICTURES = 3
_PICTURE_SIDE = 640  # pixels
_PICTURE_SCORE = 0.3  # of the detections drawn


class Validation(NamedTuple):
    """The result of validating a checkpoint."""

    figures: dict[str, float]
    pictures: dict[str, Image.Image]  # by name; of process 0 only


Validate = Callable[[Params], Validation]

_logger = logging.getLogger(__name__)


def evaluate_run(
    work_dir: Path, split: str | None = None, step: int | str = "latest"
) -> dict[str, Any]:
    """Evaluates a checkpoint of a run directory.

    Args:
      work_dir: the run directory.
      split: of the run's data set; its test split when absent.
      step: of the checkpoint, or "latest" or "best".

    Returns:
      What `evaluation.json` holds.

    Raises:
      UserError: if the directory has no config or no such checkpoint, or they do not
        fit together.
    """
    config = read_config(work_dir / "config.json")
    distributed.start_processes(config.distributed)
    distributed.enable_compilation_cache(config.compilation_cache)
    with distributed.raise_on_all_processes():
        source = open_source(config.data, split or config.data.test_split)
        step = find_step(work_dir, step)
    detector = Detector.load(work_dir, step)
    with distributed.raise_on_all_processes():
        check_preprocessing(
            detector.source,
            detector.spec.model.preprocessing,
            config.model.preprocessing,
            f"{work_dir}/config.json",
        )
        check_classes(detector.source, detector.class_names, source)
    return evaluate(detector, source, config, work_dir, split=split, step=step)


def evaluate_pretrained(config: Config, split: str | None = None) -> dict[str, Any]:
    """Evaluates the whole detector that `model.pretrained` is, without training it.

    Args:
      config: its data set, and the run directory to write to.
      split: of the data set; its test split when absent.

    Returns:
      What `evaluation.json` holds.

    Raises:
      UserError: if the weights are not those of a whole detector of these classes.
    """
    distributed.start_processes(config.distributed)
    run_dir.check_processes(config)
    distributed.enable_compilation_cache(config.compilation_cache)
    # No process may write before every process knows that it can go on.
    with distributed.raise_on_all_processes():
        config = run_dir.match_stored_config(config)
        source = open_source(config.data, split or config.data.test_split)
        if not config.model.pretrained:
            raise UserError("model.pretrained is empty, expected a detector's weights")
        weights = read_source(config.model.pretrained)
        model = resolve_preprocessing(config.model, weights)
        config = dataclasses.replace(config, model=model)
        detector = _detector_for(weights, config, source)
    work_dir = Path(config.work_dir)
    with run_dir.locked(work_dir):
        run_dir.write_config(config)
        return evaluate(detector, source, config, work_dir, split=split)


def evaluate(
    detector: Detector,
    source: Source,
    config: Config,
    work_dir: Path,
    *,
    split: str | None = None,
    step: int | None = None,
) -> dict[str, Any]:
    """Evaluates a detector; writes its figures and pictures, and prints a table.

    `evaluation.npz` holds what was found, for `frcnn report`.

    These are the names for the test split at the run's last checkpoint. Other splits
    and steps get a suffix: `evaluation-train-step60.json`, `pictures-train-step60/`.

    Args:
      detector: what to evaluate.
      source: the images.
      config: how they are read, and how many at once.
      work_dir: where to write.
      split: name of the images' split; the test split when absent.
      step: of the detector's checkpoint; None if it is of no run.

    Returns:
      What `evaluation.json` holds: what was evaluated, and the figures; see
      `report.to_json`.

    Raises:
      UserError: if an image cannot be read, or a file cannot be written.
    """
    split = split or config.data.test_split
    suffix = _suffix(split, step, config, work_dir)
    path = work_dir / f"evaluation{suffix}.json"
    with distributed.raise_on_all_processes():
        if distributed.is_main_process():
            for each in (path, path.with_suffix(".npz")):
                check_new_file(each)
    evaluated = _detect(detector, source, config)
    evaluation = {
        "split": split,
        "num_images": len(evaluated.detections),
        "step": step,
        "detector": detector.source if step is None else f"checkpoints/{step}",
        "detection": dataclasses.asdict(detector.spec.model.detection),
        **report.to_json(evaluated),
    }
    if distributed.is_main_process():
        evaluated_split.save(evaluated, path.with_suffix(".npz"))
        replace_text(path, json.dumps(evaluation, indent=2) + "\n")
        _draw_pictures(evaluated.detections, source, work_dir / f"pictures{suffix}")
        report.print_table(evaluation)
        _logger.info("wrote %s", path)
    distributed.wait_for_all_processes("evaluated")  # drawing may take a while
    return evaluation


def _detect(detector: Detector, source: Source, config: Config) -> EvaluatedSplit:
    """Finds the objects of every image, on all devices."""
    began = time.perf_counter()
    mesh = distributed.make_mesh()
    model = detector.spec.model
    graphdef, _ = abstract_detector(model, len(detector.class_names))
    step = _make_evaluation_step(graphdef, mesh)
    params = distributed.replicate(detector.params, mesh)
    results = _run_over_split(step, params, source, config, mesh)
    proposal_iou, anchor_iou, scale_iou = _best_overlaps(results, source, model)
    seconds = round(time.perf_counter() - began, 1)
    return EvaluatedSplit(
        class_names=tuple(source.class_names),
        annotations=source.annotations,
        detections=[_to_image_detections(each.detections) for each in results],
        proposal_iou=proposal_iou,
        anchor_iou=anchor_iou,
        scale_iou=scale_iou,
        fingerprints={
            "detector": detector.to_weights().fingerprint,
            "data": fingerprint(source),
        },
        environment=describe_environment() | {"seconds": seconds},
    )


def _best_overlaps(
    results: list["_Found"], source: Source, model: ModelConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Computes the IoU of objects with proposals and anchors; see `EvaluatedSplit`."""
    own, by_scale = (
        np.asarray(ops.base_anchors(scales, model.anchor_ratios, STRIDE))
        for scales in (model.anchor_scales, ANCHOR_SCALES)
    )
    first_of_scale = np.arange(0, len(by_scale), len(model.anchor_ratios))
    proposal_iou, anchor_iou, scale_iou = [], [], []
    for found, annotation in zip(results, source.annotations, strict=True):
        boxes = annotation.boxes * np.tile(found.scales, 2)
        height, width = found.image_sizes.tolist()
        proposals = np.asarray(found.proposals.boxes)[found.proposals.mask]
        proposal_iou.append(best_proposal_iou(proposals, boxes))
        anchor_iou.append(best_anchor_iou(boxes, (height, width), own).max(axis=1))
        each = best_anchor_iou(boxes, (height, width), by_scale)
        scale_iou.append(np.maximum.reduceat(each, first_of_scale, axis=1))
    return (
        np.concatenate(proposal_iou, axis=1, dtype=np.float32),
        np.concatenate(anchor_iou, dtype=np.float32),
        np.concatenate(scale_iou, dtype=np.float32),
    )


def make_validate(
    graphdef: nnx.GraphDef, source: Source, config: Config, mesh: Mesh
) -> Validate:
    """Returns a function that validates parameters.

    The figures are the mean losses over the images, `validation_loss` and
    `validation_<name>` of each of the four, and `validation_voc07_map` if there are
    objects. An image's samples are drawn by the same key each time. The pictures are
    the first images with what is found in them.

    Args:
      graphdef: structure of the detector.
      source: the images.
      config: how they are read, how many at once, and the seed.
      mesh: the devices.
    """
    step = _make_validation_step(graphdef, mesh)
    key = distributed.replicate(jax.random.key(config.seed, impl="threefry2x32"), mesh)

    def validate(params: Params) -> Validation:
        results = _run_over_split(step, (params, key), source, config, mesh)
        losses = jax.tree.map(lambda *x: np.stack(x), *(each for each, _ in results))
        columns = losses._asdict() | {"loss": losses.total}
        figures = {
            f"validation_{name}": float(np.mean(x)) for name, x in columns.items()
        }
        detections = [_to_image_detections(found) for _, found in results]
        result = voc.average_precisions(
            detections, source.annotations, len(source.class_names)
        )
        if not math.isnan(result.voc07_map):
            figures[BEST_METRIC] = float(result.voc07_map)
        is_main = distributed.is_main_process()
        return Validation(figures, _show(detections, source) if is_main else {})

    return validate


class _Found(NamedTuple):
    """What is found in every image of a batch."""

    detections: ops.Detections  # in pixels of the original images
    proposals: ops.Proposals  # in pixels of the resized images
    image_sizes: jax.Array  # [B, 2] of the resized images
    scales: jax.Array  # [B, 2] resized / original


def _make_evaluation_step(graphdef: nnx.GraphDef, mesh: Mesh) -> Callable:
    """Returns the jitted detection that also returns the proposals."""

    def detect(params: Params, batch: Batch) -> _Found:
        model = nnx.merge(graphdef, params)
        outputs = model(batch.images, batch.image_sizes, batch.scales)
        return _Found(
            detect_in_original_pixels(model, outputs),
            model.propose(outputs),
            batch.image_sizes,
            batch.scales,
        )

    return distributed.jit_per_image(detect, mesh)


def _make_validation_step(graphdef: nnx.GraphDef, mesh: Mesh) -> Callable:
    """Returns the jitted losses and detections, from one run of the backbone."""

    def losses_and_detections(
        shared: tuple[Params, jax.Array], batch: Batch
    ) -> tuple[Losses, ops.Detections]:
        params, key = shared
        model = nnx.merge(graphdef, params)
        model.eval()  # without dropout
        outputs = model(batch.images, batch.image_sizes, batch.scales)
        losses, _ = model.losses(
            image_keys(key, batch.indices),
            outputs,
            batch.boxes,
            batch.labels,
            batch.box_mask,
        )
        return losses, detect_in_original_pixels(model, outputs)

    return distributed.jit_per_image(losses_and_detections, mesh)


def _suffix(split: str, step: int | None, config: Config, work_dir: Path) -> str:
    """Returns the suffix; it is empty for the test split at the last checkpoint."""
    suffix = "" if split == config.data.test_split else f"-{quote(split, safe='+')}"
    steps = list_steps(work_dir / "checkpoints")
    if not steps or step == steps[-1]:
        return suffix
    return suffix + ("-pretrained" if step is None else f"-step{step}")


def _run_over_split(
    step: Callable, shared: Any, source: Source, config: Config, mesh: Mesh
) -> list[Any]:
    """Returns the step's result for each image, in the order of the source."""
    micro_batch = config.batch_size // config.micro_batches
    batches = evaluation_batches(
        source,
        config.data,
        batch_size=-(-micro_batch // mesh.size) * mesh.size,
        **distributed.process_shard(),
    )
    results = {}
    for batch in batches:
        sharded = distributed.shard_batch(batch, mesh)
        per_image, indices, mask = jax.device_get(step(shared, sharded))
        for row in np.flatnonzero(mask):
            results[int(indices[row])] = jax.tree.map(
                operator.itemgetter(row), per_image
            )
    return [results[index] for index in range(len(source.annotations))]


def _to_image_detections(found: ops.Detections) -> ImageDetections:
    """Drops the padding of one image's detections."""
    boxes, scores, labels, mask = map(np.asarray, found)
    return ImageDetections(boxes[mask], scores[mask], labels[mask])


def _detector_for(weights: Weights, config: Config, source: Source) -> Detector:
    """Builds the detector of a config from weights that must be whole."""
    spec = make_spec(config.model, config.data, source.class_names)
    detector = Detector.from_weights(dataclasses.replace(weights, spec=spec))
    detector = dataclasses.replace(detector, source=weights.source + weights.note)
    if weights.spec is not None and weights.spec.class_names:
        check_classes(weights.source, weights.spec.class_names, source)
    shapes = parameter_shapes(detector.params)
    for line in describe(weights, shapes, shapes):
        _logger.info(line)
    return detector


def _show(
    detections: Sequence[ImageDetections], source: Source
) -> dict[str, Image.Image]:
    """Draws small pictures of the first images with their surer detections."""
    pictures = {}
    for index, found in enumerate(detections[:NUM_VALIDATION_PICTURES]):
        annotation, is_sure = (
            source.annotations[index],
            found.scores >= _PICTURE_SCORE,
        )
        picture = draw_detections(
            source.read_image(index),
            detections=ImageDetections(*(values[is_sure] for values in found)),
            ground_truth=annotation,
            class_names=source.class_names,
        )
        picture.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
        pictures[f"validation/{annotation.image_id}"] = picture
    return pictures


def _draw_pictures(
    detections: Sequence[ImageDetections], source: Source, folder: Path
) -> None:
    with os_errors_as_user_errors(folder):
        folder.mkdir(exist_ok=True)
        names: set[str] = set()
        for index, found in enumerate(detections[:NUM_PICTURES]):
            annotation = source.annotations[index]
            picture = draw_detections(
                source.read_image(index),
                detections=found,
                ground_truth=annotation,
                class_names=source.class_names,
            )
            name = free_name(Path(annotation.image_id).name, names)
            names.add(name)
            picture.save(folder / f"{name}.png")
