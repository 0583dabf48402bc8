"""How pixels are normalized, as the published VGG16 weights expect it."""

import dataclasses
from typing import Annotated, Literal

from frcnn_jax.config.ranges import Range, Section
from frcnn_jax.errors import UserError

Colors = tuple[float, float, float]
PIXEL_MEANS = Range(-(10**6), 10**6)
PIXEL_SCALES = Range(1e-3, 10**6)


@dataclasses.dataclass(frozen=True)
class Preprocessing(Section, path="model"):
    """`(pixels - pixel_mean) / pixel_std`, of pixels 0..255 in the given order."""

    channel_order: Literal["RGB", "BGR"]
    pixel_mean: Annotated[Colors, PIXEL_MEANS]
    pixel_std: Annotated[Colors, PIXEL_SCALES]

    def __str__(self) -> str:
        """Describes it in one line."""
        mean, std = (" ".join(map(str, c)) for c in (self.pixel_mean, self.pixel_std))
        return f"{self.channel_order}, 0..255, minus {mean}, divided by {std}"


def check_preprocessing(
    source: str, stored: Preprocessing, expected: Preprocessing, expected_by: str
) -> None:
    """Checks that a detector is used with the preprocessing it was trained with.

    Args:
      source: where the detector is from.
      stored: what it was trained with.
      expected: what it is going to be used with.
      expected_by: who asks for that, for the error.

    Raises:
      UserError: if they differ.
    """
    if stored != expected:
        raise UserError(
            f"{source}: was trained with pixels {stored}, but {expected_by} has "
            f"{expected}"
        )


_UNIT = (1.0, 1.0, 1.0)

PREPROCESSINGS = {
    # torchvision and timm: 255 times the mean and deviation they use for 0..1.
    "torchvision": Preprocessing(
        "RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    ),
    # Simonyan and Zisserman's Caffe model, and Keras.
    "caffe": Preprocessing("BGR", (103.939, 116.779, 123.68), _UNIT),
    # The same model with the input channels of conv1_1 in the other order.
    "caffe-rgb": Preprocessing("RGB", (123.68, 116.779, 103.939), _UNIT),
    # rbgirshick/py-faster-rcnn: lib/fast_rcnn/config.py.
    "py-faster-rcnn": Preprocessing("BGR", (102.9801, 115.9465, 122.7717), _UNIT),
    # chainer/chainercv: FasterRCNNVGG16.
    "chainercv": Preprocessing("RGB", (122.7717, 115.9465, 102.9801), _UNIT),
    # chenyuntc/simple-faster-rcnn-pytorch with caffe_pretrain: its data/dataset.py
    # subtracts the mean in the order of RGB from BGR, and so do its trained detectors.
    "chenyuntc-caffe": Preprocessing("BGR", (122.7717, 115.9465, 102.9801), _UNIT),
}
