"""The recipe of `voc07_vgg16.py` on TensorFlow Datasets' `voc/2007`.

Prepare it first, which downloads PASCAL VOC 2007 and needs TensorFlow, unlike training:

    pip install tensorflow
    python -c "import tensorflow_datasets as tfds
    tfds.builder('voc/2007').download_and_prepare(file_format='array_record')"

VOC's trainval is called train+validation there. `--data.root` is the directory that
TFDS keeps its data in, if that is not its default.
"""

from frcnn_jax.config import Config, DataConfig, OptimizerConfig
from frcnn_jax.data.records import VOC_CLASS_NAMES


def get_config() -> Config:
    return Config(
        work_dir="runs/voc07_tfds",
        num_steps=70_000,
        data=DataConfig(
            source="tfds",
            name="voc/2007",
            train_split="train+validation",
            test_split="test",
            class_names=VOC_CLASS_NAMES,
        ),
        optimizer=OptimizerConfig(boundaries=(50_000,)),
    )
