"""Data sets of TensorFlow Datasets, written on the spot without TensorFlow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from frcnn_jax.data.records import VOC_CLASS_NAMES


def prepare(
    data_dir: Path,
    data_name: str,
    features: Mapping[str, Any],
    splits: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    config_name: str | None = None,
    version: str = "1.0.0",
) -> None:
    """Writes the examples of each split as array_record."""
    import tensorflow_datasets as tfds

    config = tfds.core.BuilderConfig(name=config_name, version=version)

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = data_name
        VERSION = tfds.core.Version(version)
        BUILDER_CONFIGS = [config] if config_name else []

        def _info(self):
            features_dict = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features_dict)

        def _split_generators(self, dl_manager):
            del dl_manager
            return {name: enumerate(examples) for name, examples in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError

    builder = Builder(data_dir=data_dir, config=config_name, file_format="array_record")
    builder.download_and_prepare()


def voc_features(class_names: Sequence[str] = VOC_CLASS_NAMES) -> dict[str, Any]:
    """The features that TFDS' builders of VOC have."""
    import tensorflow_datasets as tfds

    def labels():
        return tfds.features.Sequence(tfds.features.ClassLabel(names=class_names))

    return {
        "image": tfds.features.Image(),
        "image/filename": tfds.features.Text(),
        "objects": tfds.features.Sequence(
            {
                "label": tfds.features.ClassLabel(names=class_names),
                "bbox": tfds.features.BBoxFeature(),
                "pose": tfds.features.ClassLabel(names=["left", "unspecified"]),
                "is_truncated": np.bool_,
                "is_difficult": np.bool_,
            }
        ),
        "labels": labels(),
        "labels_no_difficult": labels(),
    }


def prepare_voc2007(data_dir: Path, folder: Path) -> None:
    """Prepares `voc/2007` of a VOC folder, by the formulas of TFDS' builder."""
    files = {"train": "train", "validation": "val", "test": "test"}
    splits = {
        name: [
            voc_example(folder, stem)
            for stem in (folder / f"ImageSets/Main/{file}.txt").read_text().split()
        ]
        for name, file in files.items()
    }
    features = voc_features()
    prepare(data_dir, "voc", features, splits, config_name="2007", version="5.0.0")


def voc_example(folder: Path, stem: str) -> dict[str, Any]:
    import tensorflow_datasets as tfds

    root = ElementTree.parse(folder / f"Annotations/{stem}.xml").getroot()
    width, height = (float(root.findtext(f"size/{s}")) for s in ("width", "height"))
    objects = []
    for element in root.findall("object"):
        x_min, y_min, x_max, y_max = (
            float(element.findtext(f"bndbox/{edge}"))
            for edge in ("xmin", "ymin", "xmax", "ymax")
        )
        box = y_min / height, x_min / width, y_max / height, x_max / width
        objects.append(
            {
                "label": element.findtext("name").lower(),
                "bbox": tfds.features.BBox(*box),
                "pose": "unspecified",
                "is_truncated": False,
                "is_difficult": element.findtext("difficult") == "1",
            }
        )
    return {
        "image": str(folder / f"JPEGImages/{stem}.jpg"),
        "image/filename": f"{stem}.jpg",
        "objects": objects,
        "labels": [],
        "labels_no_difficult": [],
    }
