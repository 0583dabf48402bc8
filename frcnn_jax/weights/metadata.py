"""What our own weight files say beside their arrays, checked as any other input."""

import json
import math
from collections.abc import Mapping
from typing import Any

# Fields of `ModelConfig`, and how many numbers each has.
_COLORS = {"channel_order": None, "pixel_mean": 3, "pixel_std": 3}
_DETECTOR = {"anchor_scales": None, "anchor_ratios": None, "losses.delta_std": 4}


def read_model(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Reads the fields of `ModelConfig` that the weights are right for only.

    Args:
      metadata: of our `.safetensors`; "model" is a JSON object.

    Returns:
      Values by field: all of the colours or none, all of a detector's or none.

    Raises:
      ValueError: if it is not what `save_weights` writes.
    """
    try:
        model = json.loads(metadata.get("model", "null"))
    except (ValueError, RecursionError):
        raise ValueError("its metadata is not JSON") from None
    if not isinstance(model, dict):
        raise ValueError("its metadata has no model")
    unknown = sorted(set(model) - set(_COLORS | _DETECTOR))
    if unknown:
        raise ValueError(f"its metadata has the unknown field {unknown[0]}")
    for group in (_COLORS, _DETECTOR):
        if set(group) & set(model) not in (set(), set(group)):
            raise ValueError(f"its metadata lacks some of {', '.join(group)}")
    for name, value in model.items():
        if not _is_valid(name, value):
            raise ValueError(f"its metadata has {name} {value}")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in model.items()}


def _is_valid(name: str, value: Any) -> bool:
    if name == "channel_order":
        return value in ("RGB", "BGR")
    length = (_COLORS | _DETECTOR)[name]
    return (
        isinstance(value, list)
        and len(value) == (length or len(value))
        and all(isinstance(v, int | float) and math.isfinite(v) for v in value)
    )
