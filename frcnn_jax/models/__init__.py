"""The network: VGG16, region proposal network, RoI head, and Faster R-CNN of them."""

from frcnn_jax.models.faster_rcnn import FasterRCNN, Losses, SamplingStats
from frcnn_jax.models.roi_head import RoIHead
from frcnn_jax.models.rpn import RPN
from frcnn_jax.models.vgg16 import VGG16

__all__ = ["RPN", "VGG16", "FasterRCNN", "Losses", "RoIHead", "SamplingStats"]
