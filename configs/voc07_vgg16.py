"""The recipe of py-faster-rcnn and its successors, published with 70 mAP on VOC 2007.

70,000 updates on one image each, trained on trainval and evaluated on test, from
ImageNet's VGG16: give `--model.pretrained`.

Its three canvases, the defaults, have 0.55 million pixels an image on VOC 2007, where a
single one of 1008 x 1008 would have 1.02 and the images themselves have 0.50.
"""

from frcnn_jax.config import Config, DataConfig, OptimizerConfig
from frcnn_jax.data.records import VOC_CLASS_NAMES


def get_config() -> Config:
    return Config(
        work_dir="runs/voc07_vgg16",
        num_steps=70_000,
        data=DataConfig(
            source="voc",
            root="data/VOC2007",
            train_split="trainval",
            test_split="test",
            class_names=VOC_CLASS_NAMES,
        ),
        optimizer=OptimizerConfig(boundaries=(50_000,)),
    )
