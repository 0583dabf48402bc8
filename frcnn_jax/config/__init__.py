"""What a run depends on: `schema` has the fields, `loading` reads and writes them."""

from frcnn_jax.config.detector_spec import DetectorSpec
from frcnn_jax.config.preprocessing import PREPROCESSINGS, Preprocessing
from frcnn_jax.config.schema import (
    AnchorTargetConfig,
    Config,
    DataConfig,
    DetectionConfig,
    DistributedConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    ProposalConfig,
    ProposalTargetConfig,
    Resizing,
    ResumeConfig,
)

__all__ = [
    "PREPROCESSINGS",
    "AnchorTargetConfig",
    "Config",
    "DataConfig",
    "DetectionConfig",
    "DetectorSpec",
    "DistributedConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Preprocessing",
    "ProposalConfig",
    "ProposalTargetConfig",
    "Resizing",
    "ResumeConfig",
]
