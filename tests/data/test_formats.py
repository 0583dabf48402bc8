"""Real data sets have the same records in every format."""

from pathlib import Path

import numpy as np
import pytest

from frcnn_jax.config import DataConfig
from frcnn_jax.data.sources import FORMATS, open_source
from tests.helpers import formats

DATA_SETS = [("BCCD", "test"), ("VOC2007", "test"), ("coco128", "train2017")]
# These formats cannot mark objects as difficult.
WITHOUT_DIFFICULT = ("yolo", "csv")


def open_real(data_root, name, split):
    """Returns a data set of the shared data and the paths of its images."""
    root, is_coco = data_root / name, name == "coco128"
    config = DataConfig(source="coco" if is_coco else "voc", root=str(root))
    source = open_source(config, split)
    template = "{}" if is_coco else "JPEGImages/{}.jpg"
    return source, [root / template.format(a.image_id) for a in source.annotations]


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(("name", "split"), DATA_SETS)
def test_a_data_set_is_the_same_in_every_format(
    data_root, tmp_path, name, split, data_format, caplog
):
    original, images = open_real(data_root, name, split)
    formats.write(data_format, original, images, tmp_path, "part")
    caplog.clear()

    # In VOC and CSV nobody knows of a class without objects.
    config = DataConfig(
        source=data_format, root=str(tmp_path), class_names=original.class_names
    )
    converted = open_source(config, "part")
    assert not caplog.records
    indices = {
        Path(each.image_id).stem: index
        for index, each in enumerate(converted.annotations)
    }
    assert len(indices) == len(converted.annotations) == len(images)
    assert converted.class_names == original.class_names
    for expected, path in zip(original.annotations, images, strict=True):
        found = converted.annotations[indices[path.stem]]
        assert found.image_size == expected.image_size
        # The others are exact. YOLO's fractions are rounded twice, in float64, so that
        # a number may end up beside the old one in float32.
        ulps = 1 if data_format == "yolo" else 0
        np.testing.assert_array_max_ulp(found.boxes, expected.boxes, ulps)
        np.testing.assert_array_equal(found.labels, expected.labels)
        is_marked = data_format not in WITHOUT_DIFFICULT
        np.testing.assert_array_equal(found.difficult, expected.difficult & is_marked)


@pytest.mark.parametrize("data_format", FORMATS)
def test_pixels_are_those_of_the_original_file(data_root, tmp_path, data_format):
    original, images = open_real(data_root, "BCCD", "test")
    formats.write(data_format, original, images, tmp_path, "part")
    converted = open_source(DataConfig(source=data_format, root=str(tmp_path)), "part")
    for index in (0, 71):
        stem = Path(converted.annotations[index].image_id).stem
        (same,) = (i for i, path in enumerate(images) if path.stem == stem)
        pixels = original.read_image(same)
        np.testing.assert_array_equal(converted.read_image(index), pixels)


def test_coco128_has_ten_crowds_and_two_images_without_objects(data_root):
    config = DataConfig(source="coco", root=str(data_root / "coco128"))
    annotations = open_source(config, "train2017").annotations
    assert sum(int(each.difficult.sum()) for each in annotations) == 10
    assert sum(not len(each.boxes) for each in annotations) == 2
