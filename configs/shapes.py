"""Drawn shapes, from scratch, on a CPU in minutes: try everything out with this one.

The whole two-stage detector with a quarter of VGG16's channels. Nothing is pretrained,
so it uses AdamW and freezes nothing; the anchors fit objects of 24 to 62 pixels.
"""

from frcnn_jax.config import (
    AnchorTargetConfig,
    Config,
    DataConfig,
    DetectionConfig,
    ModelConfig,
    OptimizerConfig,
    ProposalConfig,
    ProposalTargetConfig,
)


def get_config() -> Config:
    return Config(
        work_dir="runs/shapes",
        num_steps=2200,
        batch_size=4,
        log_every=20,
        checkpoint_every=400,
        data=DataConfig(
            source="shapes",
            train_split="train",
            test_split="test",
            num_train_images=8000,
            num_test_images=128,
            shapes_size=(96, 96),
            shorter_side=96,
            longer_side=96,
            canvases=((96, 96),),
            max_objects=8,
        ),
        model=ModelConfig(
            width=0.25,
            backbone_init="near_identity",
            frozen_blocks=0,
            rpn_channels=128,
            head_channels=256,
            anchor_scales=(2.0, 3.5),
            pooling="align",
            proposals=ProposalConfig(
                pre_nms_train=200,
                post_nms_train=50,
                pre_nms_test=200,
                post_nms_test=30,
                min_size=8.0,
            ),
            anchor_targets=AnchorTargetConfig(num_samples=32),
            proposal_targets=ProposalTargetConfig(
                num_samples=24, positive_fraction=0.5
            ),
            detection=DetectionConfig(max_detections=20),
        ),
        optimizer=OptimizerConfig(
            name="adam",
            learning_rate=1e-3,
            weight_decay=1e-4,
            bias_rate_factor=1.0,
            warmup_steps=100,
            boundaries=(1750, 2050),
            clip_norm=10.0,
        ),
    )
