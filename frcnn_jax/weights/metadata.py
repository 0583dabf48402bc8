"""The metadata of our own weight files, validated like any other input.

A VGG16's is `model`: how its pixels are preprocessed, or nothing. A whole detector's is
`detector`: the fields of `DetectorSpec`.
"""

import json
from collections.abc import Mapping
from typing import Any

from frcnn_jax.config import DetectorSpec, Preprocessing
from frcnn_jax.config.loading import dataclass_from_dict
from frcnn_jax.errors import UserError


def read_preprocessing(metadata: Mapping[str, str]) -> Preprocessing | None:
    """Reads how a VGG16's pixels are preprocessed; None if the file does not say.

    Raises:
      UserError: if it is not what `save_weights` writes.
    """
    values = _read_json(metadata, "model")
    if not values:
        return None
    try:
        return dataclass_from_dict(Preprocessing, values, where="its metadata")
    except UserError as error:
        raise UserError(f"damaged ({error})") from None


def read_spec(metadata: Mapping[str, str]) -> DetectorSpec:
    """Reads what a whole detector's parameters need.

    Raises:
      UserError: if it is not what `save_weights` writes.
    """
    if "detector" not in metadata:
        raise UserError(
            "has no class names, as files of earlier versions: import the original "
            "file again, or export the detector again from its run"
        )
    values = _read_json(metadata, "detector")
    try:
        return DetectorSpec.from_dict(values, where="its metadata")
    except UserError as error:
        raise UserError(f"damaged ({error})") from None


def _read_json(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        values = json.loads(metadata.get(key, "null"))
    except (ValueError, RecursionError):
        raise UserError("damaged (its metadata is not JSON)") from None
    if not isinstance(values, dict):
        raise UserError(f"damaged (its metadata has no {key})")
    return values
