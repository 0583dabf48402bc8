"""The examples run; tests/export/test_stablehlo.py has that of serving."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from frcnn_jax.data.sources import open_source
from frcnn_jax.detector import Detector
from frcnn_jax.models.parameters import random_params
from tests.helpers import formats, tiny

EXAMPLES = Path(__file__).parents[1] / "examples"

pytestmark = pytest.mark.slow


def run(name: str, *arguments: object, **environment: str) -> list[str]:
    """Returns the lines that an example prints."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_ops_are_batched_sharded_and_differentiated():
    lines = run("ops_in_research.py", JAX_NUM_CPU_DEVICES="3", JAX_PLATFORMS="cpu")
    assert "on 3 device(s): the same" in lines
    steps = [line for line in lines if line.startswith("step ")]
    overlaps = [float(re.search(r"IoU ([\d.]+)", line)[1]) for line in steps]
    assert overlaps[0] < 0.7
    assert overlaps[-1] > 0.99
    assert len([line for line in lines if line.startswith("image ")]) == 6


def test_a_detector_is_trained_further(tmp_path):
    folder = tmp_path / "photos"
    for split in ("train", "val"):
        drawn = open_source(tiny.DATA, {"train": "train", "val": "test"}[split])
        images = [tmp_path / split / f"{n}.png" for n in range(len(drawn.annotations))]
        images[0].parent.mkdir()
        for number, image in enumerate(images):
            Image.fromarray(drawn.read_image(number)).save(image)
        formats.write("coco", drawn, images, folder, split)
    detector = tmp_path / "detector.safetensors"
    Detector(tiny.SPEC, random_params(tiny.MODEL, tiny.NUM_CLASSES, 0)).save(detector)

    lines = run("finetune.py", detector, folder, tmp_path / "run")

    assert re.search(r"VOC07 mAP 0\.\d{3}", "\n".join(lines))
    assert json.loads(lines[-1])["image_size"] == [56, 64]
    assert (tmp_path / "run" / "evaluation.json").is_file()
