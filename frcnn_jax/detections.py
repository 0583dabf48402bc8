"""What a detector found in one image, drawn and in the forms that others read.

Boxes are in pixels of the original image, upright, the max edge exclusive.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from frcnn_jax.data.images import Picture, as_rgb
from frcnn_jax.data.records import ImageDetections
from frcnn_jax.errors import UserError
from frcnn_jax.files import os_errors_as_user_errors
from frcnn_jax.visualization.detections import draw_detections


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
    """The objects found in one image, best first.

    `detections[mask]` selects some of them, as NumPy's indexing does.

    Example:
      >>> found = Detections(
      ...     yxyx=np.array([[8.0, 4.0, 24.0, 36.0]], np.float32),
      ...     scores=np.array([0.9], np.float32),
      ...     labels=np.array([1], np.int32),
      ...     class_names=("cat", "dog"),
      ...     image_size=(48, 64),
      ... )
      >>> print(found.names, found.xyxy)
      ['dog'] [[ 4.  8. 36. 24.]]
      >>> len(found[found.scores > 0.95])
      0
    """

    yxyx: np.ndarray  #: [D, 4] float32 (y_min, x_min, y_max, x_max), original pixels
    scores: np.ndarray  #: [D] float32 probabilities
    labels: np.ndarray  #: [D] int32, 0..L-1
    class_names: tuple[str, ...]  #: L names
    image_size: tuple[int, int]  #: (height, width) of the original image, in pixels
    path: str | None = None  #: of the image; None if it was not a file

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

    def __getitem__(self, selected: Any) -> "Detections":
        """Selects detections by a mask [D], indices, a slice or one index."""
        indices = np.atleast_1d(np.arange(len(self))[selected])
        return dataclasses.replace(
            self,
            yxyx=self.yxyx[indices],
            scores=self.scores[indices],
            labels=self.labels[indices],
        )

    def draw(self, image: Picture | None = None) -> Image.Image:
        """Draws the boxes with their classes and scores; enlarges a small image.

        Args:
          image: that they were found in; by default it is read from `path` again.

        Raises:
          UserError: if the image cannot be read.
          ValueError: if there is none, or it has another size.
        """
        image = self.path if image is None else image
        if image is None:
            raise ValueError("these detections have no path, expected an image")
        pixels = as_rgb(image)
        if pixels.shape[:2] != self.image_size:
            raise ValueError(
                f"image has {pixels.shape[:2]} pixels (height, width), expected "
                f"{self.image_size}"
            )
        return draw_detections(
            pixels,
            detections=ImageDetections(self.yxyx, self.scores, self.labels),
            class_names=self.class_names,
        )

    def save(self, path: str | Path, image: Picture | None = None) -> None:
        """Writes what `draw` returns.

        Args:
          path: of the picture; its suffix chooses the format.
          image: see `draw`.

        Raises:
          UserError: if it cannot be written.
          ValueError: see `draw`.
        """
        picture = self.draw(image)
        try:
            with os_errors_as_user_errors(Path(path)):
                picture.save(path)
        except ValueError:  # Pillow knows no such suffix
            raise UserError(
                f"cannot write {path}: expected a picture such as .jpg or .png"
            ) from None

    def to_dict(self) -> dict[str, Any]:
        """Returns what `to_json` writes, with the boxes as `xyxy`."""
        rows = zip(
            self.labels.tolist(),
            self.names,
            _shortest(self.scores),
            _shortest(self.xyxy),
            strict=True,
        )
        fields = ("label", "name", "score", "xyxy")
        return {
            "path": self.path,
            "image_size": list(self.image_size),
            "detections": [dict(zip(fields, row, strict=True)) for row in rows],
        }

    def to_json(self) -> str:
        """Returns one line of JSON: path, image size (height, width) and detections."""
        return json.dumps(self.to_dict())

    def to_coco(
        self, image_id: int | str, category_ids: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Returns results as COCO's evaluation reads them, `bbox` being x, y, w, h.

        Args:
          image_id: of the image in the COCO data set.
          category_ids: the category of each of the L labels.

        Raises:
          ValueError: if there is not one category for each class.
        """
        if len(category_ids) != len(self.class_names):
            raise ValueError(
                f"category_ids has {len(category_ids)} numbers, expected one for each "
                f"of {len(self.class_names)} classes"
            )
        low, high = self.xyxy[:, :2], self.xyxy[:, 2:]
        boxes = _shortest(np.concatenate([low, high - low], axis=1))
        return [
            {
                "image_id": image_id,
                "category_id": int(category_ids[label]),
                "bbox": box,
                "score": score,
            }
            for label, box, score in zip(
                self.labels, boxes, _shortest(self.scores), strict=True
            )
        ]

    def to_supervision(self) -> Any:
        """Returns a `supervision.Detections`, which needs that package.

        Raises:
          UserError: if it is not installed.
        """
        try:
            import supervision  # here, since only this method needs it
        except ModuleNotFoundError:
            raise UserError(
                "to_supervision needs the package supervision: pip install supervision"
            ) from None
        return supervision.Detections(
            xyxy=self.xyxy,
            confidence=self.scores,
            class_id=self.labels,
            data={"class_name": np.array(self.names, str)},
        )


def _shortest(values: np.ndarray) -> list[Any]:
    """Converts float32 to the shortest decimals that are the same float32."""
    return values.astype(str).astype(np.float64).tolist()
