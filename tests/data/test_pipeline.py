"""Batches: complete, reproducible, the same with any number of workers."""

import itertools

import numpy as np
import pytest

from frcnn_jax.data.pipeline import evaluation_batches, train_batches
from frcnn_jax.data.records import Batch
from frcnn_jax.data.sources.shapes import ShapesSource
from frcnn_jax.data.sources.voc import VOCSource
from frcnn_jax.errors import UserError

NUM_IMAGES = 10
GEOMETRY = {
    "batch_size": 4,
    "shorter_side": 48,
    "longer_side": 64,
    "canvas": (64, 80),
    "max_objects": 4,
}
TRAINING = {**GEOMETRY, "flip_probability": 0.5, "seed": 0}


@pytest.fixture(scope="module")
def shapes():
    return ShapesSource(
        num_images=NUM_IMAGES, image_size=(40, 50), seed=0, split="train"
    )


def take(batches, count):
    """Returns the first batches and ends the workers behind them."""
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        for field, array, expected in zip(Batch._fields, batch, other, strict=True):
            np.testing.assert_array_equal(array, expected, err_msg=field)


def test_a_batch_has_the_promised_shapes_and_types(shapes):
    (batch,) = take(train_batches(shapes, **TRAINING), 1)
    assert isinstance(batch, Batch)
    expected = {
        "images": ((4, 64, 80, 3), np.uint8),
        "image_sizes": ((4, 2), np.float32),
        "scales": ((4, 2), np.float32),
        "boxes": ((4, 4, 4), np.float32),
        "labels": ((4, 4), np.int32),
        "box_mask": ((4, 4), np.bool_),
        "indices": ((4,), np.int32),
        "image_mask": ((4,), np.bool_),
    }
    for field, (shape, dtype) in expected.items():
        array = getattr(batch, field)
        assert type(array) is np.ndarray, field
        assert (array.shape, array.dtype) == (shape, dtype), field
    assert batch.image_mask.all()


def test_a_batch_of_one_has_a_leading_axis(shapes):
    (batch,) = take(train_batches(shapes, **{**TRAINING, "batch_size": 1}), 1)
    assert batch.images.shape == (1, 64, 80, 3)
    assert batch.indices.shape == (1,)


def test_batches_hold_resized_images_with_their_boxes(shapes):
    for batch in evaluation_batches(shapes, **GEOMETRY):
        np.testing.assert_array_equal(batch.image_sizes, [[48, 60]] * 4)
        np.testing.assert_allclose(batch.scales, [[1.2, 1.2]] * 4)
        assert not batch.images[:, 48:].any()
        assert not batch.images[:, :, 60:].any()
        for row, index in enumerate(batch.indices):
            annotation = shapes.annotations[index]
            chosen = ~annotation.difficult
            count = chosen.sum()
            np.testing.assert_array_equal(batch.box_mask[row], np.arange(4) < count)
            np.testing.assert_allclose(
                batch.boxes[row, :count], annotation.boxes[chosen] * 1.2, rtol=1e-6
            )
            np.testing.assert_array_equal(
                batch.labels[row, :count], annotation.labels[chosen]
            )
            assert not batch.boxes[row, count:].any()


def test_difficult_objects_are_not_in_a_batch(voc_folder, voc_object):
    difficult = "<difficult>1</difficult>"
    objects = [voc_object("x", 1, 1, 9, 9, difficult), voc_object("y", 1, 1, 20, 20)]
    voc_folder.add("a", objects)
    voc_folder.split("all", ["a"])
    source = VOCSource(voc_folder.root, "all")
    (batch,) = take(train_batches(source, **{**TRAINING, "batch_size": 1}), 1)
    np.testing.assert_array_equal(batch.labels, [[1, 0, 0, 0]])
    np.testing.assert_array_equal(batch.box_mask, [[True, False, False, False]])


def test_every_epoch_has_each_image_once_in_another_order(shapes):
    batches = take(train_batches(shapes, **TRAINING), 15)
    order = np.concatenate([batch.indices for batch in batches])
    epochs = order.reshape(6, NUM_IMAGES)  # Batches of 4 straddle epochs of 10.
    for epoch in epochs:
        assert sorted(epoch) == list(range(NUM_IMAGES))
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_the_seed_decides_the_order(shapes):
    orders = {
        seed: tuple(
            np.concatenate(
                [b.indices for b in take(train_batches(shapes, **options), 5)]
            )
        )
        for seed in (0, 1)
        for options in [{**TRAINING, "seed": seed}]
    }
    assert orders[0] != orders[1]


def test_flips_mirror_pixels_and_boxes_and_change_between_epochs(shapes):
    plain = {
        int(index): (image, boxes[mask])
        for batch in evaluation_batches(shapes, **GEOMETRY)
        for index, image, boxes, mask in zip(
            batch.indices, batch.images, batch.boxes, batch.box_mask, strict=True
        )
    }
    flips = {index: set() for index in plain}
    for batch in take(train_batches(shapes, **TRAINING), 20):
        for row, index in enumerate(batch.indices):
            image, boxes = plain[int(index)]
            flipped = not np.array_equal(batch.images[row], image)
            flips[int(index)].add(flipped)
            if flipped:
                image = image.copy()
                image[:, :60] = image[:, :60][:, ::-1]
                boxes = boxes.copy()
                boxes[:, [1, 3]] = 60 - boxes[:, [3, 1]]
            np.testing.assert_array_equal(batch.images[row], image)
            np.testing.assert_allclose(batch.boxes[row][batch.box_mask[row]], boxes)
    assert sum(seen == {True, False} for seen in flips.values()) >= 7


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_flip_probability_0_never_and_1_always_flips(shapes, probability):
    options = {**TRAINING, "flip_probability": probability}
    first = next(iter(evaluation_batches(shapes, **GEOMETRY)))
    for batch in take(train_batches(shapes, **options), 3):
        for image, index in zip(batch.images, batch.indices, strict=True):
            if index < 4:
                same = np.array_equal(image, first.images[index])
                assert same == (probability == 0.0)


@pytest.mark.parametrize("start_step", [1, 7])
def test_a_resumed_run_sees_the_batches_of_the_uninterrupted_one(shapes, start_step):
    uninterrupted = take(train_batches(shapes, **TRAINING), 10)
    resumed = take(
        train_batches(shapes, **TRAINING, start_step=start_step), 10 - start_step
    )
    assert_same(resumed, uninterrupted[start_step:])


def test_worker_processes_change_nothing_also_on_resume(shapes):
    expected = take(train_batches(shapes, **TRAINING), 7)
    workers = train_batches(shapes, **TRAINING, start_step=2, num_workers=2)
    batches = take(workers, 5)
    assert_same(batches, expected[2:])
    assert all(type(array) is np.ndarray for batch in batches for array in batch)


def test_evaluation_has_each_image_once_and_masks_the_filler(shapes):
    batches = list(evaluation_batches(shapes, **GEOMETRY))
    indices = np.concatenate([batch.indices for batch in batches])
    mask = np.concatenate([batch.image_mask for batch in batches])
    assert len(batches) == 3
    np.testing.assert_array_equal(indices[mask], np.arange(NUM_IMAGES))
    np.testing.assert_array_equal(mask, np.arange(12) < NUM_IMAGES)


def test_evaluation_fills_a_batch_larger_than_the_data_set(shapes):
    (batch,) = evaluation_batches(shapes, **{**GEOMETRY, "batch_size": 16})
    assert batch.images.shape[0] == 16
    assert batch.image_mask.sum() == NUM_IMAGES


def test_evaluation_with_a_worker_equals_evaluation_without(shapes):
    alone = list(evaluation_batches(shapes, **GEOMETRY))
    assert_same(list(evaluation_batches(shapes, **GEOMETRY, num_workers=1)), alone)


def test_images_of_different_sizes_share_a_canvas(voc_folder, voc_object):
    voc_folder.add("tall", [voc_object("x", 1, 1, 20, 40)], size=(40, 20))
    voc_folder.add("wide", [voc_object("x", 1, 1, 50, 10)], size=(10, 50))
    voc_folder.split("all", ["tall", "wide"])
    source = VOCSource(voc_folder.root, "all")
    options = {**GEOMETRY, "batch_size": 2, "shorter_side": 32}
    (batch,) = evaluation_batches(source, **options)
    np.testing.assert_array_equal(batch.image_sizes, [[64, 32], [13, 64]])
    np.testing.assert_allclose(batch.boxes[:, 0, 2:], batch.image_sizes)
    np.testing.assert_allclose(batch.scales, [[1.6, 1.6], [1.3, 1.28]])


def test_an_image_larger_than_the_canvas_is_refused_at_once(shapes):
    options = {**TRAINING, "canvas": (48, 59)}
    message = r"image train-000000 is 48x60 .* canvas is 48x59"
    with pytest.raises(UserError, match=message):
        train_batches(shapes, **options)


def test_too_many_objects_are_refused_at_once(shapes):
    with pytest.raises(UserError, match=r"image train-\d+ has \d objects.* is 1"):
        evaluation_batches(shapes, **{**GEOMETRY, "max_objects": 1})


def test_an_empty_data_set_is_refused():
    empty = ShapesSource(num_images=0, image_size=(40, 50), seed=0, split="train")
    with pytest.raises(UserError, match="no images"):
        train_batches(empty, **TRAINING)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_image_surfaces_with_its_path(voc_folder, voc_object, num_workers):
    voc_folder.add("a", [voc_object("x", 1, 1, 9, 9)])
    voc_folder.truncate("a")
    voc_folder.split("all", ["a"])
    source = VOCSource(voc_folder.root, "all")
    batches = train_batches(source, **TRAINING, num_workers=num_workers)
    with pytest.raises(UserError, match=r"cannot read image .*/a\.jpg") as error:
        next(batches)
    assert "\n" not in str(error.value)
    batches.close()
