"""A trained detector: load it, detect objects with it, save it.

    detector = Detector.load("runs/shapes")
    detections = detector("picture.jpg")

Boxes are in pixels of the original image, the max edge exclusive.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh
from PIL import Image

from frcnn_jax import distributed, ops
from frcnn_jax.config import DetectorSpec
from frcnn_jax.data import images, transforms
from frcnn_jax.data.records import Batch
from frcnn_jax.errors import UserError
from frcnn_jax.models.faster_rcnn import DenseOutputs, FasterRCNN
from frcnn_jax.models.parameters import (
    Params,
    abstract_detector,
    flatten,
    parameter_shapes,
    unflatten,
)
from frcnn_jax.weights.checkpoints import read_checkpoint
from frcnn_jax.weights.exported import is_exported, read_exported
from frcnn_jax.weights.exporting import save_weights
from frcnn_jax.weights.importing import read_weights
from frcnn_jax.weights.record import OWN_FORMAT, Weights, select_matching

DetectStep = Callable[[Params, Batch], tuple[ops.Detections, Array, Array]]


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
    """The objects found in one image, best first."""

    yxyx: np.ndarray  # [D, 4] float32 (y_min, x_min, y_max, x_max), original pixels
    scores: np.ndarray  # [D] float32 probabilities
    labels: np.ndarray  # [D] int32, 0..L-1
    class_names: tuple[str, ...]  # L names
    image_size: tuple[int, int]  # (height, width) of the original image, in pixels

    @property
    def xyxy(self) -> np.ndarray:
        """[D, 4] the same boxes as (x_min, y_min, x_max, y_max)."""
        return self.yxyx[:, [1, 0, 3, 2]]

    @property
    def names(self) -> list[str]:
        """D class names."""
        return [self.class_names[label] for label in self.labels]

    def __len__(self) -> int:
        """Returns D, how many objects were found."""
        return len(self.scores)


@dataclasses.dataclass(frozen=True, eq=False)
class Detector:
    """Parameters, and what they need to find objects in any picture."""

    spec: DetectorSpec
    params: Params
    source: str = "detector"  # where it is from, for messages

    @classmethod
    def load(cls, source: str | Path, step: int | str = "latest") -> "Detector":
        """Loads a detector.

        Args:
          source: a run directory, one of its checkpoints, a folder of `frcnn export`,
            or a `.safetensors` of `save`, `frcnn export-weights` or `frcnn
            import-weights`.
          step: of a run directory's checkpoint, or "latest" or "best".

        Raises:
          UserError: if there is none, it is damaged, or its classes have no names.
        """
        path = Path(source)
        if is_exported(path):
            return cls.from_weights(read_exported(path))
        if path.is_dir():
            return cls.from_weights(read_checkpoint(path, step))
        return cls.from_weights(read_weights(str(source)))

    @classmethod
    def from_weights(cls, weights: Weights) -> "Detector":
        """Builds a detector from weights.

        Raises:
          UserError: if they are no whole detector, or its classes have no names.
        """
        spec = weights.spec
        if spec is None:
            raise UserError(f"{weights.source}: is no detector, only its first layers")
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

    def __call__(self, image: str | Path | Image.Image | np.ndarray) -> Detections:
        """Finds the objects in one picture.

        The first picture of each canvas takes a compilation.

        Args:
          image: a path, a PIL image of any mode, or [H, W, 3] uint8 RGB.

        Returns:
          What the evaluation finds in the same image: to the bit if it evaluates one
          image at a time, else but for rounding.

        Raises:
          UserError: if the image cannot be read or fits into no canvas.
          ValueError: if an array has another shape or type.
        """
        pixels = _to_rgb(image)
        height, width = pixels.shape[:2]
        batch = self._make_batch(pixels)
        detections, _, _ = jax.device_get(self._detect_step(self.params, batch))
        mask = detections.mask[0]
        return Detections(
            yxyx=detections.boxes[0][mask],
            scores=detections.scores[0][mask],
            labels=detections.labels[0][mask],
            class_names=self.class_names,
            image_size=(height, width),
        )

    def save(self, path: str | Path) -> None:
        """Writes a `.safetensors` that `load` reads.

        Raises:
          UserError: if the file cannot be written.
        """
        save_weights(self.to_weights(), Path(path))

    def to_weights(self) -> Weights:
        """Returns the parameters by name, with the spec."""
        arrays = flatten(self.params)
        colors = self.spec.model.preprocessing
        return Weights(self.source, OWN_FORMAT, "", arrays, (), colors, self.spec)

    def _make_batch(self, pixels: np.ndarray) -> Batch:
        """Resizes and pads an image as the data loader does; a batch of one."""
        resizing = self.spec.resizing
        size = pixels.shape[:2]
        canvas = transforms.choose_canvas_for(size, resizing, "given")
        resized, boxes, scale = transforms.resize(
            pixels,
            np.zeros((1, 4), np.float32),
            shorter_side=resizing.shorter_side,
            longer_side=resizing.longer_side,
        )
        example = Batch(
            images=transforms.pad_to(resized, resizing.canvases[canvas]),
            image_sizes=np.array(resized.shape[:2], np.float32),
            scales=scale,
            boxes=boxes,
            labels=np.zeros(1, np.int32),
            box_mask=np.zeros(1, bool),
            indices=np.int32(0),
            image_mask=np.True_,
        )
        return Batch(*(field[None] for field in example))

    @functools.cached_property
    def _detect_step(self) -> DetectStep:
        graphdef, _ = abstract_detector(self.spec.model, len(self.class_names))
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
    """Detects objects; the boxes are in pixels of the original images.

    Args:
      model: the detector.
      outputs: of its convolutions.
    """
    detections = model.detect(outputs)
    scales = jnp.tile(outputs.scales, (1, 2))[:, None]
    return detections._replace(boxes=detections.boxes / scales)


def _to_rgb(image: str | Path | Image.Image | np.ndarray) -> np.ndarray:
    if isinstance(image, str | Path):
        return images.read_rgb(Path(image), str(image))
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"image is {image.dtype} {image.shape}, expected uint8 (height, width, 3)"
        )
    return image
