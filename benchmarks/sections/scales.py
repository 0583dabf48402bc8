"""How large what is measured is: as in the recipe, or tiny."""

import itertools
from typing import NamedTuple

from frcnn_jax.config import ModelConfig, ProposalConfig

Canvas = tuple[int, int]  # (height, width), pixels


class Setting(NamedTuple):
    """What one training step, or one detection, is like."""

    precision: str  # float32, tf32 or bfloat16
    canvas: Canvas
    batch_size: int

    def __str__(self) -> str:
        height, width = self.canvas
        return f"{height}x{width}, {self.precision}, batch {self.batch_size}"


class Scale(NamedTuple):
    """The model, its images, and how often everything is repeated."""

    model: ModelConfig
    precisions: tuple[str, ...]
    canvases: tuple[Canvas, ...]
    batch_sizes: tuple[int, ...]
    num_workers: tuple[int, ...]  # processes that read images; 0 for threads
    repeats: int
    seconds_per_run: float  # steps are run together to fill them

    def settings(self) -> list[Setting]:
        """Lists all combinations, the most informative first."""
        axes = self.precisions, self.canvases, self.batch_sizes
        ranks = itertools.product(*(range(len(axis)) for axis in axes))
        return [
            Setting(*(axis[i] for axis, i in zip(axes, rank, strict=True)))
            for rank in sorted(
                ranks, key=lambda rank: rank[0] + 3 * rank[1] + 2 * rank[2]
            )
        ]


FULL = Scale(
    ModelConfig(),
    precisions=("bfloat16", "tf32", "float32"),
    canvases=((608, 1008), (608, 800)),
    batch_sizes=(8, 1, 16, 4, 2),
    num_workers=(8, 0),
    repeats=5,
    seconds_per_run=0.3,
)
TINY = Scale(
    ModelConfig(
        width=1 / 16,
        rpn_channels=16,
        head_channels=16,
        anchor_scales=(1.0, 2.0),
        proposals=ProposalConfig(
            pre_nms_train=60, post_nms_train=20, pre_nms_test=60, post_nms_test=10
        ),
    ),
    precisions=("float32",),
    canvases=((64, 96),),
    batch_sizes=(1,),
    num_workers=(0,),
    repeats=1,
    seconds_per_run=0.0,
)
