"""The walk-through notebook's numbers, exactly; docs/recipes.md has what differs.

Images of 800 x 800 pixels, 22,500 anchors. It is for comparison, not for the best
results: those are published for the recipe of `voc07_vgg16.py`.
"""

from frcnn_jax.config import (
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    ProposalConfig,
    ProposalTargetConfig,
)


def get_config() -> Config:
    return Config(
        work_dir="runs/notebook",
        data=DataConfig(
            source="voc",
            root="data/VOC2007",
            shorter_side=800,
            longer_side=800,
            keep_aspect_ratio=False,
            canvases=((800, 800),),
        ),
        model=ModelConfig(
            frozen_blocks=0,
            activation="none",
            rounding="floor",
            proposals=ProposalConfig(rank_by="logit"),
            proposal_targets=ProposalTargetConfig(
                append_gt=False,
                negative_iou_low=1e-6,  # background must touch an object
            ),
            losses=LossConfig(
                normalizer="positives",
                localization_weight=10.0,
                rpn_beta=1.0,
                roi_beta=1.0,
                delta_std=(1.0, 1.0, 1.0, 1.0),
            ),
        ),
    )
