"""Detectors as repositories of the Hugging Face hub, or as folders like them.

Such a folder has `model.safetensors`, which is all that we read; `config.json`, the
`DetectorSpec` in its metadata once more, for others; and a card, `README.md`.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from frcnn_jax.config import DetectorSpec
from frcnn_jax.errors import UserError
from frcnn_jax.files import replace_text
from frcnn_jax.weights.card import describe_detector
from frcnn_jax.weights.exporting import save_weights
from frcnn_jax.weights.importing import read_weights
from frcnn_jax.weights.record import Weights
from frcnn_jax.weights.sources import HUB, HUB_FILE, download_from_hub

METADATA = {
    "library_name": "frcnn_jax",
    "pipeline_tag": "object-detection",
    "tags": ["faster-rcnn", "jax", "vgg16"],
}


def save_repository(spec: DetectorSpec, weights: Weights, folder: Path) -> None:
    """Writes weights and config; the card is `make_card`'s.

    Args:
      spec: of a detector.
      weights: its own.
      folder: that exists.

    Raises:
      UserError: if the folder is a run directory, or a file cannot be written.
    """
    if (folder / "checkpoints").is_dir():  # its config.json is the run's
        raise UserError(f"{folder}: is a run directory, expected another folder")
    # A local path means nothing to others, and may reveal too much.
    weights = dataclasses.replace(weights, source="Detector.save_pretrained")
    save_weights(weights, folder / HUB_FILE)
    text = json.dumps(spec.to_dict(), indent=2) + "\n"
    replace_text(folder / "config.json", text)


def read_repository(name: str, **options: Any) -> Weights:
    """Reads the weights of a repository.

    Args:
      name: OWNER/NAME on the hub, or a folder.
      **options: of `huggingface_hub.hf_hub_download`.

    Raises:
      UserError: if there is none, or it cannot be read.
    """
    if Path(name).is_dir():
        return read_weights(name)
    return read_weights(str(download_from_hub(f"{HUB}{name}", **options)))


def make_card(spec: DetectorSpec, weights: Weights, **metadata: Any) -> ModelCard:
    """Makes a detector's model card.

    Args:
      spec: of the detector.
      weights: its own.
      **metadata: more of `huggingface_hub.ModelCardData`, such as `license`.
    """
    data = ModelCardData(**METADATA | metadata)
    return ModelCard(
        f"---\n{data.to_yaml()}\n---\n\n{describe_detector(spec, weights)}"
    )
