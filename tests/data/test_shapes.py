"""The procedural data set: reproducible, varied, with exact boxes."""

import numpy as np
import pytest

from frcnn_jax.data.records import Source
from frcnn_jax.data.sources import drawing
from frcnn_jax.data.sources.shapes import CLASS_NAMES, ShapesSource
from frcnn_jax.errors import UserError

IMAGE_SIZE = (96, 128)


def make_source(num_images=400, seed=0, split="train", **options):
    return ShapesSource(
        num_images=num_images, image_size=IMAGE_SIZE, seed=seed, split=split, **options
    )


@pytest.fixture(scope="module")
def source():
    return make_source()


def test_it_is_a_source_with_consistent_arrays(source):
    assert isinstance(source, Source)
    assert len(source.annotations) == 400
    for annotation in source.annotations:
        count = len(annotation.boxes)
        assert annotation.image_size == IMAGE_SIZE
        assert (annotation.boxes.shape, annotation.boxes.dtype) == ((count, 4), "f4")
        assert (annotation.labels.shape, annotation.labels.dtype) == ((count,), "i4")
        assert (annotation.difficult.shape, annotation.difficult.dtype) == (
            (count,),
            bool,
        )
    image = source.read_image(0)
    assert (image.shape, image.dtype) == ((*IMAGE_SIZE, 3), np.uint8)


def test_an_image_depends_on_seed_split_and_index_only(source):
    other = make_source(num_images=9)
    np.testing.assert_array_equal(source.read_image(7), other.read_image(7))
    np.testing.assert_array_equal(
        source.annotations[7].boxes, other.annotations[7].boxes
    )


@pytest.mark.parametrize("change", [{"seed": 1}, {"split": "test"}])
def test_another_seed_or_split_has_no_image_in_common(source, change):
    other = make_source(num_images=20, **change)
    ours = {source.read_image(index).tobytes() for index in range(20)}
    assert len(ours) == 20
    assert not ours & {other.read_image(index).tobytes() for index in range(20)}


def test_the_data_set_is_as_varied_as_described(source):
    annotations = source.annotations
    counts = np.array([len(annotation.boxes) for annotation in annotations])
    assert set(counts) == {0, 1, 2, 3, 4}
    assert 0.04 < (counts == 0).mean() < 0.12
    labels = np.concatenate([annotation.labels for annotation in annotations])
    assert np.bincount(labels, minlength=len(CLASS_NAMES)).min() > len(labels) / 12
    difficult = np.concatenate([annotation.difficult for annotation in annotations])
    assert 0.04 < difficult.mean() < 0.1


def test_boxes_have_the_promised_sizes_and_lie_inside(source):
    boxes = np.concatenate([annotation.boxes for annotation in source.annotations])
    sides = boxes[:, 2:] - boxes[:, :2]
    assert sides.min() >= round(0.25 * 96)
    assert sides.max() <= round(0.65 * 96)
    ratio = sides[:, 0] / sides[:, 1]
    assert ratio.min() >= 0.47  # A half, but for the rounding to whole pixels.
    assert ratio.max() <= 2.1
    assert ratio.std() > 0.2
    assert boxes.min() >= 0
    assert (boxes[:, 2:] <= IMAGE_SIZE).all()


def test_no_object_is_mostly_covered(source):
    for annotation in source.annotations:
        for first, box in enumerate(annotation.boxes):
            for other in annotation.boxes[first + 1 :]:
                overlap = np.minimum(box[2:], other[2:]) - np.maximum(
                    box[:2], other[:2]
                )
                smaller = min(np.prod(b[2:] - b[:2]) for b in (box, other))
                assert np.prod(np.maximum(overlap, 0)) <= 0.2 * smaller


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_a_shape_fills_its_box_exactly(name):
    rng = np.random.default_rng(0)
    for height, width in [(17, 17), (17, 33), (34, 18), (58, 57), (40, 80)]:
        mask = drawing.mask(rng, name, height, width)
        assert mask.shape == (height, width)
        assert 0.0 <= mask.min() <= mask.max() == 1.0
        for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
            assert edge.max() >= 0.25


def test_a_box_is_tight_around_the_painted_pixels(source, monkeypatch):
    black, white = np.zeros(3, np.float32), np.full(3, 255, np.float32)
    ground = np.zeros((*IMAGE_SIZE, 3), np.float32)
    monkeypatch.setattr(drawing, "background", lambda *_: (ground.copy(), [black]))
    monkeypatch.setattr(drawing, "contrasting_color", lambda *_: white)
    alone = [
        index
        for index, annotation in enumerate(source.annotations)
        if len(annotation.boxes) == 1 and not annotation.difficult.any()
    ]
    for index in alone[:30]:
        # The tip of a star or triangle is a quarter opaque, 64; the noise is below 45.
        rows, columns = np.nonzero(source.read_image(index).mean(axis=-1) > 45)
        painted = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
        np.testing.assert_array_equal(painted, source.annotations[index].boxes[0])


def test_objects_stand_out_and_difficult_ones_less(source):
    contrast = {False: [], True: []}
    for index, annotation in enumerate(source.annotations[:200]):
        image = source.read_image(index).astype(np.float32)
        outside = np.ones(IMAGE_SIZE, bool)
        for y_min, x_min, y_max, x_max in annotation.boxes.astype(int):
            outside[y_min:y_max, x_min:x_max] = False
        background = image[outside].mean(axis=0)
        for box, label, difficult in zip(
            annotation.boxes, annotation.labels, annotation.difficult, strict=True
        ):
            if CLASS_NAMES[label] == "rectangle":
                y_min, x_min, y_max, x_max = box.astype(int)
                inside = image[y_min:y_max, x_min:x_max].mean(axis=(0, 1))
                contrast[bool(difficult)].append(np.linalg.norm(inside - background))
    assert np.min(contrast[False]) > 40
    assert np.median(contrast[True]) < 0.5 * np.median(contrast[False])


def test_color_does_not_reveal_the_class(source):
    colors = {name: [] for name in CLASS_NAMES}
    for index, annotation in enumerate(source.annotations):
        if len(annotation.boxes) == 1:
            y_min, x_min, y_max, x_max = annotation.boxes[0].astype(int)
            patch = source.read_image(index)[y_min:y_max, x_min:x_max]
            colors[CLASS_NAMES[annotation.labels[0]]].append(patch.mean(axis=(0, 1)))
    means = np.array([np.mean(values, axis=0) for values in colors.values()])
    # A mean of a dozen colors with a deviation of 60 has one of about 17.
    assert np.abs(means - means.mean(axis=0)).max() < 60


def test_given_classes_decide_the_labels_and_nothing_else(source):
    names = CLASS_NAMES[::-1]
    other = make_source(class_names=names)
    assert other.class_names == names
    for ours, theirs in zip(other.annotations, source.annotations, strict=True):
        np.testing.assert_array_equal(ours.labels, 5 - theirs.labels)
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
        assert ours.labels.dtype == np.int32
    np.testing.assert_array_equal(other.read_image(0), source.read_image(0))


@pytest.mark.parametrize("names", [["star"], [*CLASS_NAMES[1:], "circle"]])
def test_other_classes_are_refused(names):
    with pytest.raises(UserError, match=r"expected those of the shapes in any order"):
        make_source(class_names=names)


def test_reading_past_the_end_is_refused():
    with pytest.raises(IndexError, match="image 3 of 3"):
        make_source(num_images=3).read_image(3)
