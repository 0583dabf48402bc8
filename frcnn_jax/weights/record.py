"""Weights as read from a file, and how they fit a detector and its config."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from frcnn_jax.config import DetectorSpec, ModelConfig, Preprocessing
from frcnn_jax.errors import UserError

OWN_FORMAT = "frcnn_jax"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Parameters under our detector's names, and what they are valid for."""

    source: str  # path or address
    layout: str  # title of the project's layout, or OWN_FORMAT
    sha256: str = ""  # of the file; a checkpoint has none
    arrays: Mapping[str, np.ndarray]  # "backbone.conv1_1.kernel": ...
    unknown: tuple[str, ...] = ()  # arrays of the file that are not used
    preprocessing: Preprocessing | None  # None: the file does not say
    spec: DetectorSpec | None = None  # None: not a whole detector

    @classmethod
    def of_detector(
        cls,
        spec: DetectorSpec,
        arrays: Mapping[str, np.ndarray],
        *,
        source: str,
        sha256: str = "",
    ) -> "Weights":
        """Returns the weights of one of our own detectors, all of them used.

        Args:
          spec: of the detector.
          arrays: by our names.
          source: path or address.
          sha256: of the file, if it is one.
        """
        return cls(
            source=source,
            layout=OWN_FORMAT,
            sha256=sha256,
            arrays=arrays,
            preprocessing=spec.model.preprocessing,
            spec=spec,
        )

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits: the beginning of a SHA-256 of spec and arrays."""
        spec = None if self.spec is None else self.spec.to_dict()
        digest = hashlib.sha256(json.dumps(spec).encode())
        for name, array in sorted(self.arrays.items()):
            digest.update(f"{name} {array.shape}".encode())
            digest.update(array.astype("<f4").tobytes())
        return digest.hexdigest()[:16]

    @property
    def note(self) -> str:
        """What distinguishes the file from others of its name."""
        return self.sha256 and f", SHA-256 {self.sha256}"

    @property
    def model_fields(self) -> dict[str, Any]:
        """Config fields that the parameters depend on, and their values."""
        fields: dict[str, Any] = {}
        if self.preprocessing is not None:
            fields |= dataclasses.asdict(self.preprocessing)
        if self.spec is not None:
            fields |= {
                "anchor_scales": self.spec.model.anchor_scales,
                "anchor_ratios": self.spec.model.anchor_ratios,
                "losses.delta_std": self.spec.model.losses.delta_std,
            }
        return fields


def select_matching(
    weights: Weights,
    shapes: Mapping[str, tuple[int, ...]],
    class_names: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Selects the arrays that a detector has a parameter for.

    The layers of class scores and deltas are left out if the classes differ, in number
    or by name; every other array must have the detector's shape.

    Args:
      weights: from `read_weights`.
      shapes: of the detector's parameters, by name.
      class_names: of the detector; empty if they are those of the weights.

    Raises:
      UserError: if a shape differs: the file is of another architecture.
    """
    known_names = weights.spec.class_names if weights.spec else ()
    same_names = not (known_names and class_names) or known_names == tuple(class_names)
    selected = {}
    for name, array in weights.arrays.items():
        per_class = name.startswith(("head.score.", "head.delta."))
        if name not in shapes or (per_class and not same_names):
            continue
        if array.shape != shapes[name]:
            if per_class and array.shape[:-1] == shapes[name][:-1]:
                continue
            raise UserError(
                f"{weights.source}: {name} has the shape {array.shape}, expected "
                f"{shapes[name]}: another architecture"
            )
        selected[name] = array
    return selected


def resolve_preprocessing(config: ModelConfig, weights: Weights) -> ModelConfig:
    """Fills in the preprocessing, and checks that weights and config agree.

    Args:
      config: its preprocessing may be unset.
      weights: from `read_weights`.

    Raises:
      UserError: if the weights are not valid for a field of the config, or neither says
        how pixels are preprocessed.
    """
    resolved: dict[str, Any] = {}
    for field, value in weights.model_fields.items():
        ours = functools.reduce(getattr, field.split("."), config)
        if ours is None:
            resolved[field] = value
        elif ours != value:
            raise UserError(
                f"model.{field} is {ours}, but {weights.source} requires {value}; "
                "remove the setting or change it to that"
            )
    config = dataclasses.replace(config, **resolved)
    if config.channel_order is None:
        raise UserError(
            f"{weights.source} does not say how pixels are preprocessed: give "
            "model.channel_order, model.pixel_mean and model.pixel_std"
        )
    return config
