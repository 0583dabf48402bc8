"""Pictures, drawn on the spot."""

from pathlib import Path

import numpy as np
from PIL import Image


def save_noise(path: Path, size: tuple[int, int] = (60, 80)) -> Path:
    """Writes noise of size (height, width), in a folder that is made if needed."""
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path)
    return path
