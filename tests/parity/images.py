"""The two images that are trained on, as batches of one."""

import dataclasses

import numpy as np
from PIL import Image

from configs import voc07_vgg16
from frcnn_jax.data.loader import evaluation_batches
from frcnn_jax.data.records import Batch
from frcnn_jax.data.sources import open_source


def square_batch(data_root):
    """A picture of 800 x 800 pixels and the two objects of the notebook, In [2]."""
    path = data_root / "BCCD" / "JPEGImages" / "BloodImage_00000.jpg"
    image = np.asarray(Image.open(path).convert("RGB").resize((800, 800)))
    return Batch(
        images=image[None],
        image_sizes=np.float32([[800, 800]]),
        scales=np.float32([[1, 1]]),
        boxes=np.float32([[[20, 30, 400, 500], [300, 400, 500, 600]]]),
        labels=np.int32([[5, 7]]),  # In [2] counts from 1
        box_mask=np.array([[True, True]]),
        indices=np.int32([0]),
        image_mask=np.array([True]),
    )


def padded_batch(data_root):
    """A picture of 600 x 800 pixels on a larger canvas, with its own objects."""
    data = dataclasses.replace(
        voc07_vgg16.get_config().data,
        root=str(data_root / "BCCD"),
        canvases=((608, 1008),),
        class_names=None,
    )
    source = open_source(data, "train")
    return next(evaluation_batches(source, data, batch_size=1))


def cut_image(batch):
    """[H, W, 3] the image without the rest of its canvas."""
    height, width = batch.image_sizes[0].astype(int)
    return batch.images[0, :height, :width]
