"""The recipe of `voc07_vgg16.py` on PASCAL VOC 2007 and 2012 together, longer.

110,000 updates on one image each, trained on both trainvals and evaluated on the test
images of 2007. Peers publish 75.3 mAP for it, from ImageNet's VGG16: give
`--model.pretrained`.
"""

from frcnn_jax.config import Config, DataConfig, OptimizerConfig
from frcnn_jax.data.records import VOC_CLASS_NAMES


def get_config() -> Config:
    return Config(
        work_dir="runs/voc0712_vgg16",
        num_steps=110_000,
        data=DataConfig(
            source="voc",
            root="data/VOCdevkit",
            train_split="VOC2007/trainval+VOC2012/trainval",
            test_split="VOC2007/test",
            class_names=VOC_CLASS_NAMES,
        ),
        optimizer=OptimizerConfig(boundaries=(80_000,)),
    )
