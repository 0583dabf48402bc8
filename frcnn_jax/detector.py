"""A trained detector: load it, detect objects with it, save it.

    detector = Detector.load("runs/shapes")
    detections = detector("picture.jpg")

Boxes are in pixels of the original image, the max edge exclusive.
"""

import dataclasses
import functools
import numbers
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from huggingface_hub import ModelCard, ModelHubMixin
from jax.sharding import Mesh

from frcnn_jax import distributed, ops
from frcnn_jax.config import DetectionConfig, DetectorSpec, ModelConfig
from frcnn_jax.data import transforms
from frcnn_jax.data.images import Picture, as_rgb
from frcnn_jax.data.records import Batch
from frcnn_jax.detections import Detections
from frcnn_jax.errors import UserError
from frcnn_jax.files import expand_home
from frcnn_jax.models.faster_rcnn import DenseOutputs, FasterRCNN
from frcnn_jax.models.parameters import (
    Params,
    abstract_detector,
    flatten,
    parameter_shapes,
    unflatten,
)
from frcnn_jax.weights import hub
from frcnn_jax.weights.checkpoints import check_no_step, read_source
from frcnn_jax.weights.exported import is_exported, read_exported
from frcnn_jax.weights.exporting import save_weights
from frcnn_jax.weights.record import Weights, select_matching

# Jitted; of parameters and a batch, see `distributed.jit_per_image`.
DetectStep = jax.stages.Wrapped

# An image whose canvas is rare waits for at most this many batches of others.
_MAX_BATCHES_WAITING = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Detector(ModelHubMixin):
    """Parameters, and what they need to find objects in any picture.

    `save_pretrained`, `from_pretrained` and `push_to_hub` are huggingface_hub's.
    """

    spec: DetectorSpec
    params: Params = dataclasses.field(repr=False)
    source: str = "detector"  #: where it is from, for messages

    # Were it empty, ModelHubMixin would set it in instances, but these are frozen.
    _hub_mixin_config = hub.METADATA

    @classmethod
    def load(cls, source: str | Path, step: int | str = "latest") -> "Detector":
        """Loads a detector.

        Args:
          source: a run directory, one of its checkpoints, a `.safetensors` of `save`,
            `frcnn export-weights` or `frcnn import-weights`, a folder of
            `save_pretrained` or `frcnn export`, or another source of `read_weights`:
            `hf://OWNER/NAME`, `https://...`, `chainercv:voc07`.
          step: of a run directory's checkpoint, or "latest" or "best".

        Raises:
          UserError: if there is none, it is damaged, its classes have no names, `step`
            is given but `source` is not a run directory, or JAX has no device.
        """
        distributed.start_backend()
        path = expand_home(source)
        if not is_exported(path):
            return cls.from_weights(read_source(str(source), step))
        check_no_step(source, step)
        return cls.from_weights(read_exported(path))

    @classmethod
    def from_weights(cls, weights: Weights) -> "Detector":
        """Builds a detector from weights.

        Raises:
          UserError: if they are not a whole detector, or its classes have no names.
        """
        spec = weights.spec
        if spec is None:
            raise UserError(
                f"{weights.source}: is not a detector: it has backbone weights only"
            )
        if not spec.class_names:
            raise UserError(
                f"{weights.source}: does not name its classes; convert it with frcnn "
                "import-weights --class-names"
            )
        _, shapes = abstract_detector(spec.model, len(spec.class_names))
        arrays = select_matching(weights, parameter_shapes(shapes))
        missing = sorted(set(parameter_shapes(shapes)) - set(arrays))
        if missing:
            raise UserError(
                f"{weights.source}: no {missing[0]} for {len(spec.class_names)} "
                "classes, expected a whole detector"
            )
        return cls(spec, unflatten(arrays), weights.source)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label."""
        return self.spec.class_names

    @overload
    def __call__(
        self,
        images: Picture,
        *,
        score_threshold: float = ...,
        max_detections: int = ...,
        batch_size: int = ...,
    ) -> Detections: ...

    @overload
    def __call__(
        self,
        images: list[Picture] | tuple[Picture, ...],
        *,
        score_threshold: float = ...,
        max_detections: int = ...,
        batch_size: int = ...,
    ) -> list[Detections]: ...

    def __call__(
        self,
        images: Picture | list[Picture] | tuple[Picture, ...],
        *,
        score_threshold: float = 0.5,
        max_detections: int = 100,
        batch_size: int = 1,
    ) -> Detections | list[Detections]:
        """Finds the objects in one picture, or in each of a list.

        The first picture of each canvas triggers a compilation, and so does a threshold
        below the trained detector's, or a greater number of detections.

        Args:
          images: one picture, or a list or tuple of them: a path, a PIL image of any
            mode, or [H, W, 3] uint8 RGB. They may have any size.
          score_threshold: detections score more than this.
          max_detections: per image; the best ones.
          batch_size: images computed at once.

        Returns:
          What the evaluation finds in the same image: bit-identical when both run one
          image at a time, otherwise equal up to rounding. For a list, a list.

        Raises:
          UserError: if an image cannot be read, or an option is impossible.
          TypeError: if an image is neither a path nor an array.
          ValueError: if an array has another shape or type.
        """
        options: dict[str, Any] = {
            "score_threshold": score_threshold,
            "max_detections": max_detections,
            "batch_size": batch_size,
        }
        if isinstance(images, list | tuple):
            return list(self.stream(images, **options))
        return next(self.stream([images], **options))

    def stream(
        self,
        images: Iterable[Picture],
        *,
        score_threshold: float = 0.5,
        max_detections: int = 100,
        batch_size: int = 1,
    ) -> Iterator[Detections]:
        """Finds the objects in each picture, lazily and in order.

        Pictures of one canvas are computed together; a few batches are held at a time.

        Args:
          images: pictures; see `__call__`, also for the options.
          score_threshold: detections score more than this.
          max_detections: per image; the best ones.
          batch_size: images computed at once.

        Raises:
          UserError: see `__call__`; while iterating.
          TypeError, ValueError: see `__call__`; while iterating.
        """
        check_options(score_threshold, max_detections, batch_size)
        trained = self.spec.model.detection
        detect = self._compiled_for(
            dataclasses.replace(
                trained,
                score_threshold=min(score_threshold, trained.score_threshold),
                max_detections=max(max_detections, trained.max_detections),
            )
        )
        inputs = (self._prepare(image) for image in images)
        finished: dict[int, Detections] = {}
        num_yielded = 0
        for group in _group_by_canvas(inputs, batch_size):
            batch = _make_batch([each.example for _, each in group], batch_size)
            result, _, _ = jax.device_get(detect(self._params_on_device, batch))
            for row, (number, each) in enumerate(group):
                found = self._to_detections(result, row, each)
                kept = found[found.scores > score_threshold]
                finished[number] = kept[:max_detections]
            while num_yielded in finished:
                yield finished.pop(num_yielded)
                num_yielded += 1

    def save(self, path: str | Path) -> None:
        """Writes a `.safetensors` that `load` reads.

        Raises:
          UserError: if the file cannot be written.
        """
        save_weights(self.to_weights(), Path(path))

    def to_weights(self) -> Weights:
        """Returns the parameters by name, with the spec."""
        return Weights.of_detector(self.spec, flatten(self.params), source=self.source)

    def generate_model_card(self, **metadata: object) -> ModelCard:
        """Describes the detector, with the evaluation of the run it is loaded from.

        Args:
          **metadata: more of `huggingface_hub.ModelCardData`, such as `license`.
        """
        return hub.make_card(self.spec, self.to_weights(), **metadata)

    def _save_pretrained(self, save_directory: Path) -> None:
        hub.save_repository(self.spec, self.to_weights(), save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: object) -> "Detector":
        return cls.from_weights(hub.read_repository(model_id, **options))

    def _prepare(self, image: Picture) -> "_Input":
        """Reads, resizes and pads an image as the data loader does."""
        pixels = as_rgb(image)
        path = str(image) if isinstance(image, str | Path) else None
        size = pixels.shape[0], pixels.shape[1]
        resizing = self.spec.resizing
        resized, boxes, scale = transforms.resize(
            pixels,
            np.zeros((1, 4), np.float32),
            shorter_side=resizing.shorter_side,
            longer_side=resizing.longer_side,
            keep_aspect_ratio=resizing.keep_aspect_ratio,
        )
        example = Batch(
            images=transforms.pad_to(
                resized, _find_canvas(resized.shape[:2], resizing.canvases, path)
            ),
            image_sizes=np.array(resized.shape[:2], np.float32),
            scales=scale,
            boxes=boxes,
            labels=np.zeros(1, np.int32),
            box_mask=np.zeros(1, bool),
            indices=np.int32(0),
            image_mask=np.True_,
        )
        return _Input(example, size, path)

    def _to_detections(
        self, result: ops.Detections, row: int, image: "_Input"
    ) -> Detections:
        boxes, scores, labels, mask = (np.asarray(field[row]) for field in result)
        return Detections(
            yxyx=boxes[mask],
            scores=scores[mask],
            labels=labels[mask],
            class_names=self.class_names,
            image_size=image.size,
            path=image.path,
        )

    @functools.cached_property
    def _params_on_device(self) -> Params:
        return distributed.replicate(self.params, distributed.make_mesh(1))

    def _compiled_for(self, options: DetectionConfig) -> DetectStep:
        model = dataclasses.replace(self.spec.model, detection=options)
        return _single_device_step(model, len(self.class_names))


class _Input(NamedTuple):
    """An image, ready for a batch."""

    example: Batch  # without the batch axis
    size: tuple[int, int]  # (height, width) of the original image, in pixels
    path: str | None


def check_options(score_threshold: float, max_detections: int, batch_size: int) -> None:
    """Checks the options of a detection.

    Args:
      score_threshold: detections score more than this.
      max_detections: per image.
      batch_size: images computed at once.

    Raises:
      UserError: if one is impossible.
    """
    is_number = isinstance(score_threshold, numbers.Real)
    if not is_number or not 0.0 <= score_threshold <= 1.0:
        raise UserError(
            f"score_threshold is {score_threshold!r}, expected a number from 0 to 1"
        )
    for name, value in (("max_detections", max_detections), ("batch_size", batch_size)):
        if not isinstance(value, numbers.Integral) or value < 1:
            raise UserError(f"{name} is {value!r}, expected a positive whole number")


def _find_canvas(
    resized_size: tuple[int, ...],
    canvases: Sequence[tuple[int, int]],
    path: str | None,
) -> tuple[int, int]:
    """Finds the canvas of an image, one on its side if it fits into none as they are.

    Training may have seen landscapes only; the canvas changes no detection.
    """
    height, width = resized_size
    upright = transforms.choose_canvas((height, width), canvases)
    if upright is not None:
        return canvases[upright]
    turned = tuple((width, height) for height, width in canvases)
    return turned[transforms.require_canvas((height, width), turned, path or "given")]


def _group_by_canvas(
    inputs: Iterable[_Input], batch_size: int
) -> Iterator[list[tuple[int, _Input]]]:
    """Groups numbered images by canvas; each waits for a few batches at most."""
    # A canvas is put in with its first image, so the first one has waited longest.
    waiting: dict[tuple[int, int], list[tuple[int, _Input]]] = {}
    for number, each in enumerate(inputs):
        canvas = each.example.images.shape[:2]
        waiting.setdefault(canvas, []).append((number, each))
        longest = next(iter(waiting))
        if len(waiting[canvas]) == batch_size:
            yield waiting.pop(canvas)
        elif number - waiting[longest][0][0] >= _MAX_BATCHES_WAITING * batch_size:
            yield waiting.pop(longest)
    yield from waiting.values()


def _make_batch(examples: Sequence[Batch], batch_size: int) -> Batch:
    """Stacks images; copies of the first one fill up the batch."""
    filler = examples[0]._replace(image_mask=np.False_)
    rows = [*examples, *[filler] * (batch_size - len(examples))]
    return Batch(*map(np.stack, zip(*rows, strict=True)))


@functools.lru_cache(maxsize=8)
def _single_device_step(model: ModelConfig, num_classes: int) -> DetectStep:
    graphdef, _ = abstract_detector(model, num_classes)
    return make_detect_step(graphdef, distributed.make_mesh(1))


def make_detect_step(graphdef: nnx.GraphDef, mesh: Mesh) -> DetectStep:
    """Returns the jitted detection of parameters and a batch.

    Args:
      graphdef: structure of the detector.
      mesh: the devices; see `distributed.jit_per_image` for what it returns.
    """

    def detect(params: Params, batch: Batch) -> ops.Detections:
        model = nnx.merge(graphdef, params)
        return detect_in_original_pixels(
            model, model(batch.images, batch.image_sizes, batch.scales)
        )

    return distributed.jit_per_image(detect, mesh)


def detect_in_original_pixels(
    model: FasterRCNN, outputs: DenseOutputs
) -> ops.Detections:
    """Detects objects; the boxes are in pixels of the original images, inside them.

    Args:
      model: the detector.
      outputs: of its convolutions.
    """
    return jax.vmap(in_original_pixels)(
        model.detect(outputs), outputs.image_sizes, outputs.scales
    )


def in_original_pixels(
    detections: ops.Detections, image_size: jax.Array, scale: jax.Array
) -> ops.Detections:
    """Turns one image's boxes into pixels of the original image, inside it.

    Args:
      detections: boxes in pixels of the resized image.
      image_size: [2] (height, width) of the resized image, in pixels.
      scale: [2] resized / original size, (y, x).
    """
    # The quotient in float32 may miss the original size, a whole number, by a little.
    original_size = jnp.round(image_size / scale)
    scales, limits = (jnp.tile(x, 2)[None] for x in (scale, original_size))
    return detections._replace(boxes=jnp.minimum(detections.boxes / scales, limits))
