"""Detects objects with an exported detector, without frcnn_jax.

    pip install jax flatbuffers numpy pillow
    python serve_stablehlo.py FOLDER_OF_FRCNN_EXPORT PICTURE [PICTURE ...]

Prints a line of JSON for each object; a box is [y_min, x_min, y_max, x_max], in pixels.
"""

import json
import math
import sys
from pathlib import Path

import jax
import numpy as np
from jax import export
from PIL import Image, ImageOps

folder, *pictures = map(Path, sys.argv[1:])
description = json.loads((folder / "detector.json").read_text())
class_names = description["detector"]["class_names"]
resizing = description["detector"]["resizing"]
shorter, longer = resizing["shorter_side"], resizing["longer_side"]
parameters = jax.device_put(dict(np.load(folder / "parameters.npz")))
detect = {}
for function in description["functions"]:
    content = bytearray((folder / function["file"]).read_bytes())
    detect[tuple(function["canvas"])] = jax.jit(export.deserialize(content).call)

for picture in pictures:
    image = ImageOps.exif_transpose(Image.open(picture)).convert("RGB")
    scale = min(shorter / min(image.size), longer / max(image.size))
    size = [max(round(side * scale), 1) for side in image.size]
    width, height = size
    fitting = [c for c in detect if height <= c[0] and width <= c[1]]
    if not fitting:
        sys.exit(f"{picture}: no canvas for {height} x {width} pixels")
    canvas = min(fitting, key=math.prod)
    images = np.zeros((1, *canvas, 3), np.uint8)
    images[0, :height, :width] = image.resize(size, Image.Resampling.BILINEAR)
    sizes = np.array([[height, width]], np.float32)
    scales = sizes / np.array([[image.height, image.width]], np.float32)
    found = jax.device_get(detect[canvas](parameters, images, sizes, scales))
    fields = [found[name][found["mask"]] for name in ("labels", "scores", "boxes")]
    for label, score, box in zip(*fields, strict=True):
        row = [str(picture), class_names[label], score.item(), box.tolist()]
        print(json.dumps(row))
