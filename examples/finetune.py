"""Trains a detector further on a folder of your own, from Python.

    python finetune.py DETECTOR FOLDER WORK_DIR

DETECTOR is a `.safetensors` of `Detector.save`, or an address such as
hf://OWNER/NAME or chainercv:voc07. FOLDER is in COCO's format (docs/custom-data.md for
others), with the splits "train" and "val". Layers whose size depends on the classes
start from random weights if FOLDER has other classes than DETECTOR.
"""

import dataclasses
import sys

from frcnn_jax import Detector
from frcnn_jax.config import Config, DataConfig, OptimizerConfig
from frcnn_jax.data.sources import open_source
from frcnn_jax.training.train import train

if __name__ == "__main__":  # worker processes import this file again
    source, folder, work_dir = sys.argv[1:]
    spec = Detector.load(source).spec

    data = DataConfig(
        source="coco",
        root=folder,
        train_split="train",
        test_split="val",
        **dataclasses.asdict(spec.resizing),  # the sizes that it was trained with
    )
    config = Config(
        work_dir=work_dir,
        num_epochs=10,
        data=data,
        model=dataclasses.replace(spec.model, pretrained=source),
        optimizer=OptimizerConfig(
            learning_rate=1e-4, boundaries=(7,), boundary_unit="epochs"
        ),
    )
    evaluation = train(config)  # resumes if it was stopped
    if evaluation is None:
        sys.exit("stopped by SIGTERM; the same command continues")
    print(f"VOC07 mAP {evaluation['voc07_map']:.3f}")

    found = Detector.load(work_dir)(open_source(data, "val").read_image(0))
    print(found.to_json())
