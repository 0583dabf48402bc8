"""Real data sets are the same records in every format."""

from pathlib import Path

import numpy as np
import pytest

from frcnn_jax.config import DataConfig
from frcnn_jax.data.sources import FORMATS, open_source
from tests.helpers import formats

# Format, folder, split and number of images.
DATA_SETS = [
    ("voc", "BCCD", "test"),
    ("voc", "VOC2007", "test"),
    ("coco", "coco128", "train2017"),
]
# Neither tells difficult objects from others.
WITHOUT_DIFFICULT = ("yolo", "csv")


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(("kind", "name", "split"), DATA_SETS)
def test_a_data_set_is_the_same_in_every_format(
    data_root, tmp_path, kind, name, split, to
):
    root = data_root / name
    original = open_source(DataConfig(source=kind, root=str(root)), split)
    suffix = ".jpg" if kind == "voc" else ""
    folder = root / "JPEGImages" if kind == "voc" else root
    paths = [folder / f"{each.image_id}{suffix}" for each in original.annotations]
    formats.write(to, original, paths, tmp_path, "part")

    # In VOC and CSV nobody knows of a class without objects.
    config = DataConfig(source=to, root=str(tmp_path), class_names=original.class_names)
    converted = open_source(config, "part")
    by_stem = {
        Path(each.image_id).stem: i for i, each in enumerate(converted.annotations)
    }
    assert len(by_stem) == len(original.annotations) == len(converted.annotations)
    assert converted.class_names == original.class_names
    for index, path in enumerate(paths):
        expected = original.annotations[index]
        found = converted.annotations[by_stem[path.stem]]
        assert found.image_size == expected.image_size
        # YOLO's fractions are rounded in float64, so that pixels miss the float32
        # number by one unit in the last place at most.
        np.testing.assert_allclose(found.boxes, expected.boxes, rtol=1.2e-7, atol=1e-5)
        ...
