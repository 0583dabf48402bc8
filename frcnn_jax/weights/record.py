"""Parameters from elsewhere, and how they fit a detector and its config."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from frcnn_jax.config import ModelConfig
from frcnn_jax.errors import UserError
from frcnn_jax.preprocessing import Preprocessing

OWN_FORMAT = "frcnn_jax"


@dataclasses.dataclass(frozen=True)
class Weights:
    """Parameters by the names of our detector's, and what they presuppose."""

    source: str  # path or address
    layout: str  # whose names and arrangement it had
    sha256: str  # of the file
    arrays: Mapping[str, np.ndarray]  # "backbone.conv1_1.kernel": ...
    unknown: tuple[str, ...]  # what else the file has
    # Fields of `ModelConfig` that the parameters are right for only: colours, and those
    # of anchors and deltas if it is a whole detector.
    model: Mapping[str, Any]

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What pixels must become; None if that is not known."""
        known = "channel_order" in self.model
        return Preprocessing.from_fields(self.model) if known else None


def trained_weights(
    source: str,
    arrays: Mapping[str, np.ndarray],
    preprocessing: Preprocessing,
    config: ModelConfig,
) -> Weights:
    """Describes the parameters of a detector of ours.

    Args:
      source: where they are from.
      arrays: all parameters by name.
      preprocessing: what they were trained with.
      config: of the detector.
    """
    model = dataclasses.asdict(preprocessing) | {
        "anchor_scales": config.anchor_scales,
        "anchor_ratios": config.anchor_ratios,
        "losses.delta_std": config.losses.delta_std,
    }
    return Weights(source, OWN_FORMAT, "", arrays, (), model)


def fit(
    weights: Weights, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Takes what a detector has a place for.

    The layers of class scores and deltas are left out if the classes are not as many;
    all else must have the detector's shapes.

    Args:
      weights: from `read_weights`.
      shapes: of the detector's parameters, by name.

    Raises:
      UserError: if a shape is another: the file is of another architecture.
    """
    taken = {}
    for name, array in weights.arrays.items():
        if name not in shapes:
            continue
        if array.shape != shapes[name]:
            per_class = name.startswith(("head.score.", "head.delta."))
            if per_class and array.shape[:-1] == shapes[name][:-1]:
                continue
            raise UserError(
                f"{weights.source}: {name} has the shape {array.shape}, expected "
                f"{shapes[name]}: another architecture"
            )
        taken[name] = array
    return taken


def settle(config: ModelConfig, weights: Weights) -> ModelConfig:
    """Fills in the colours' fields, and checks that weights and config agree.

    Raises:
      UserError: if a field of the config is not what the weights presuppose, or neither
        says how pixels are preprocessed.
    """
    given = {}
    for field, value in weights.model.items():
        ours = functools.reduce(getattr, field.split("."), config)
        if ours is None:
            given[field] = value
        elif ours != value:
            raise UserError(
                f"model.{field} is {ours}, but {weights.source} is right for {value} "
                "only; leave it out or set it to that"
            )
    config = dataclasses.replace(config, **given)
    if config.channel_order is None:
        raise UserError(
            f"{weights.source} does not say how pixels are preprocessed: give "
            "model.channel_order, model.pixel_mean and model.pixel_std"
        )
    return config
