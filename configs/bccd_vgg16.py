"""Blood cells (BCCD, VOC format, 3 classes) at 300 x 400 pixels, on a CPU in an hour.

It needs ImageNet's VGG16, or its first layers: give them with `--model.pretrained`.
"""

from frcnn_jax.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    return Config(
        work_dir="runs/bccd_vgg16",
        num_steps=1230,  # 6 epochs
        checkpoint_every=200,
        data=DataConfig(
            source="voc",
            root="data/BCCD",
            train_split="train",
            test_split="test",
            shorter_side=300,
            longer_side=400,
            canvases=((300, 400),),
        ),
        model=ModelConfig(anchor_scales=(2.0, 4.0, 8.0)),
    )
