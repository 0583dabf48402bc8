"""What our own weight files say beside their arrays, checked as any other input."""

import json
from collections.abc import Mapping
from typing import Any

# Fields of `ModelConfig`, and how many numbers each has.
_COLORS = {"channel_order": None, "pixel_mean": 3, "pixel_std": 3}
_DETECTOR = {"anchor_scales": None, "anchor_ratios": None, "losses.delta_std": 4}


def read_model(metadata: Mapping[str, str], is_detector: bool) -> dict[str, Any]:
    """Reads the fields of `ModelConfig` that the weights are right for only.

    Args:
      metadata: of our `.safetensors`; "model" is a JSON object.
      is_detector: whether it must have the fields of anchors and deltas, too.

    Returns:
      Values by field. Colours may be absent if it is no detector.

    Raises:
      ValueError: if it is not what `save_weights` writes.
    """
    try:
        model = json.loads(metadata.get("model", "null"))
    except (ValueError, RecursionError):
        raise ValueError("its metadata is not JSON") from None
    if not isinstance(model, dict):
        raise ValueError("its metadata has no model")
    expected = _COLORS | _DETECTOR if is_detector else _COLORS
    if set(model) != set(expected) and (is_detector or model):
        raise ValueError(
            f"its metadata has {', '.join(model) or 'nothing'}, expected "
            f"{', '.join(expected)}"
        )
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
        and all(isinstance(v, int | float) and abs(v) < 1e9 for v in value)
    )
