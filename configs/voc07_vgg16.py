"""The recipe of 70 mAP on PASCAL VOC 2007, of py-faster-rcnn and its successors.

70,000 updates on one image each, trained on trainval and evaluated on test. It reaches
that figure from ImageNet's VGG16 only: give `--model.pretrained`.
"""

from frcnn_jax.config import Config, DataConfig, OptimizerConfig

CLASS_NAMES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def get_config() -> Config:
    return Config(
        work_dir="runs/voc07_vgg16",
        num_steps=70_000,
        data=DataConfig(
            source="voc",
            root="data/VOC2007",
            train_split="trainval",
            test_split="test",
            class_names=CLASS_NAMES,
        ),
        optimizer=OptimizerConfig(boundaries=(50_000,)),
    )
