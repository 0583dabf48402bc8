"""Batches: complete, reproducible, the same with any number of workers."""

import dataclasses
import itertools

import numpy as np
import pytest

from frcnn_jax.config import DataConfig
from frcnn_jax.data.loader import TrainLoader, evaluation_batches
from frcnn_jax.data.records import Batch, fingerprint
from frcnn_jax.data.sources.shapes import ShapesSource
from frcnn_jax.errors import UserError
from tests.helpers.batches import train_batches
from tests.helpers.sized import SizedSource
from tests.helpers.voc_folder import open_voc, voc_object

NUM_IMAGES = 10
CONFIG = DataConfig(
    shorter_side=48, longer_side=64, canvases=((64, 80),), max_objects=4
)

# For images of three aspect ratios: 11 wide ones, 6 tall ones and 2 squares.
SIZES = [(24, 48), (48, 24), (24, 48)] * 5 + [(32, 32), (24, 48), (48, 24), (32, 32)]
MIXED = DataConfig(
    shorter_side=24,
    longer_side=48,
    canvases=((24, 48), (48, 24), (32, 32)),
    max_objects=1,
)
TRAINING = {"batch_size": 4, "seed": 0}

AUGMENTED = dataclasses.replace(
    CONFIG,
    canvases=((80, 80),),
    vertical_flip_probability=0.5,
    rotation_probability=0.5,
    scale_range=(0.5, 1.25),
    min_crop=0.5,
    color_jitter=0.3,
)


@pytest.fixture(scope="module")
def shapes():
    return ShapesSource(
        num_images=NUM_IMAGES, image_size=(40, 50), seed=0, split="train"
    )


@pytest.fixture(scope="module")
def mixed():
    return SizedSource(SIZES)


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
    (batch,) = take(train_batches(shapes, CONFIG, **TRAINING), 1)
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
    (batch,) = take(train_batches(shapes, CONFIG, batch_size=1, seed=0), 1)
    assert batch.images.shape == (1, 64, 80, 3)
    assert batch.indices.shape == (1,)


def test_batches_hold_resized_images_with_their_boxes(shapes):
    for batch in evaluation_batches(shapes, CONFIG, batch_size=4):
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
    source = open_voc(voc_folder.root, "all")
    (batch,) = take(train_batches(source, CONFIG, batch_size=1, seed=0), 1)
    np.testing.assert_array_equal(batch.labels, [[1, 0, 0, 0]])
    np.testing.assert_array_equal(batch.box_mask, [[True, False, False, False]])


def test_every_epoch_has_each_image_once_in_another_order(mixed):
    assert TrainLoader(mixed, MIXED, **TRAINING).steps_per_epoch == 3 + 2 + 1
    batches = take(train_batches(mixed, MIXED, **TRAINING), 5 * 6)
    epochs = [
        np.concatenate([b.indices[b.image_mask] for b in batches[start : start + 6]])
        for start in range(0, 30, 6)
    ]
    for epoch in epochs:
        assert sorted(epoch) == list(range(19))
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_the_images_of_a_batch_share_the_smallest_canvas_they_fit_into(mixed):
    wide, tall, square = (24, 48), (48, 24), (32, 32)
    seen = []
    for batch in take(train_batches(mixed, MIXED, **TRAINING), 6):
        assert len(batch.images) == 4
        for index, size in zip(batch.indices, batch.image_sizes, strict=True):
            # A square of 32 pixels becomes one of 24, as the shorter side is 24.
            assert tuple(size) == ((24, 24) if SIZES[index] == square else SIZES[index])
        seen.append(batch.images.shape[1:3])
    assert sorted(seen) == sorted([wide] * 3 + [tall] * 2 + [square])


def test_filler_in_training_repeats_images_of_its_canvas(mixed):
    for batch in take(train_batches(mixed, MIXED, **TRAINING), 6):
        if not batch.image_mask.all():
            (masked,) = np.nonzero(~batch.image_mask)
            assert masked[0] > 0
            assert {SIZES[i] for i in batch.indices[masked]} == {
                SIZES[i] for i in batch.indices[batch.image_mask]
            }


def test_the_seed_decides_the_order(shapes):
    orders = {
        seed: tuple(np.concatenate([batch.indices for batch in take(batches, 5)]))
        for seed in (0, 1)
        for batches in [train_batches(shapes, CONFIG, batch_size=4, seed=seed)]
    }
    assert orders[0] != orders[1]


def test_flips_mirror_pixels_and_boxes_and_change_between_epochs(shapes):
    plain = {
        int(index): (image, boxes[mask])
        for batch in evaluation_batches(shapes, CONFIG, batch_size=4)
        for index, image, boxes, mask in zip(
            batch.indices, batch.images, batch.boxes, batch.box_mask, strict=True
        )
    }
    flips = {index: set() for index in plain}
    for batch in take(train_batches(shapes, CONFIG, **TRAINING), 20):
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
    config = dataclasses.replace(CONFIG, flip_probability=probability)
    first = next(evaluation_batches(shapes, config, batch_size=4))
    for batch in take(train_batches(shapes, config, **TRAINING), 3):
        for image, index in zip(batch.images, batch.indices, strict=True):
            if index < 4:
                same = np.array_equal(image, first.images[index])
                assert same == (probability == 0.0)


def test_a_run_resumed_at_any_step_sees_the_batches_of_the_uninterrupted_one(mixed):
    uninterrupted = take(train_batches(mixed, MIXED, **TRAINING), 16)
    for start_step in range(16):  # Epochs begin at 0, 6 and 12.
        resumed = train_batches(mixed, MIXED, **TRAINING, start_step=start_step)
        assert_same(take(resumed, 16 - start_step), uninterrupted[start_step:])


def test_a_late_epoch_is_reached_without_reading_the_earlier_ones(mixed, monkeypatch):
    read = []
    read_image = SizedSource.read_image

    def spy(source, index):
        read.append(index)
        return read_image(source, index)

    monkeypatch.setattr(SizedSource, "read_image", spy)
    take(train_batches(mixed, MIXED, **TRAINING, start_step=10**9), 1)
    assert len(read) < 50  # What the threads read ahead.


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_shares_of_two_processes_are_the_batches_of_one(mixed, num_workers):
    config = dataclasses.replace(MIXED, num_workers=num_workers)
    options = {**TRAINING, "start_step": 3}
    expected = take(train_batches(mixed, config, **options), 8)
    shares = [
        take(train_batches(mixed, config, **options, **share), 8)
        for share in shares_of(2)
    ]
    assert_same(concatenate(shares), expected)


def test_the_shares_of_an_evaluation_are_the_batches_of_one(mixed):
    shares = [
        list(evaluation_batches(mixed, MIXED, batch_size=4, **share))
        for share in shares_of(4)
    ]
    assert all(len(batch.images) == 1 for share in shares for batch in share)
    expected = list(evaluation_batches(mixed, MIXED, batch_size=4))
    assert_same(concatenate(shares), expected)


def shares_of(process_count):
    """The options by which each of several processes asks for its share."""
    return [
        {"process_index": index, "process_count": process_count}
        for index in range(process_count)
    ]


def concatenate(shares):
    """Puts the shares of each batch together."""
    return [
        Batch(*map(np.concatenate, zip(*batches, strict=True)))
        for batches in zip(*shares, strict=True)
    ]


@pytest.mark.parametrize("batches", [train_batches, evaluation_batches])
def test_a_batch_that_cannot_be_shared_equally_is_refused(mixed, batches):
    options = TRAINING if batches is train_batches else {"batch_size": 4}
    with pytest.raises(UserError, match=r"batch_size is 4, .* 3 processes"):
        batches(mixed, MIXED, **options, process_index=0, process_count=3)


def test_worker_processes_change_nothing_also_on_resume(mixed):
    expected = take(train_batches(mixed, MIXED, **TRAINING), 15)
    config = dataclasses.replace(MIXED, num_workers=2)
    workers = train_batches(mixed, config, **TRAINING, start_step=2)
    batches = take(workers, 13)
    assert_same(batches, expected[2:])
    assert all(type(array) is np.ndarray for batch in batches for array in batch)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_augmentation_depends_on_neither_workers_nor_shares_nor_resume(
    shapes, num_workers
):
    expected = take(train_batches(shapes, AUGMENTED, **TRAINING), 12)
    config = dataclasses.replace(AUGMENTED, num_workers=num_workers)
    for start_step in (1, 5):  # Epochs begin at 0, 3, 6 and 9.
        options = {**TRAINING, "start_step": start_step}
        shares = [
            take(train_batches(shapes, config, **options, **share), 12 - start_step)
            for share in shares_of(2)
        ]
        assert_same(concatenate(shares), expected[start_step:])


def test_augmentation_of_an_image_does_not_depend_on_the_batch_size(shapes):
    def by_image(batch_size):
        batches = train_batches(shapes, AUGMENTED, batch_size=batch_size, seed=3)
        return {
            int(index): image
            for batch in take(batches, -(-NUM_IMAGES // batch_size))
            for index, image in zip(batch.indices, batch.images, strict=True)
        }

    images = by_image(1)
    for batch_size in (3, 10, 16):
        for index, image in by_image(batch_size).items():
            np.testing.assert_array_equal(image, images[index])


def test_augmentation_differs_by_image_epoch_and_seed(shapes):
    def sizes(seed):
        batches = take(train_batches(shapes, AUGMENTED, batch_size=1, seed=seed), 30)
        return [tuple(batch.image_sizes[0]) for batch in batches]

    assert len(set(sizes(0))) > 20
    assert sizes(0) != sizes(1)


def test_evaluation_is_not_augmented(shapes):
    plain = dataclasses.replace(CONFIG, canvases=AUGMENTED.canvases)
    batches = evaluation_batches(shapes, AUGMENTED, batch_size=4)
    assert_same(batches, list(evaluation_batches(shapes, plain, batch_size=4)))


def test_difficult_objects_may_be_cut_and_stay_out_of_augmented_batches(shapes):
    for batch in take(train_batches(shapes, AUGMENTED, **TRAINING), 6):
        for index, mask in zip(batch.indices, batch.box_mask, strict=True):
            assert mask.sum() == (~shapes.annotations[index].difficult).sum()


@pytest.mark.parametrize(
    ("change", "size"),
    [({"rotation_probability": 0.1}, "60x60"), ({"scale_range": (1, 1.5)}, "72x90")],
)
def test_augmentation_that_fits_into_no_canvas_is_refused_at_once(shapes, change, size):
    config = dataclasses.replace(CONFIG, canvases=((48, 64),), **change)
    (field,) = change
    message = rf"train-000000 \(with data\.{field}\) is {size} .* is 48x64;"
    with pytest.raises(UserError, match=message):
        train_batches(shapes, config, **TRAINING)
    assert list(evaluation_batches(shapes, config, batch_size=4))


def test_evaluation_has_each_image_once_and_masks_the_filler(shapes):
    batches = list(evaluation_batches(shapes, CONFIG, batch_size=4))
    indices = np.concatenate([batch.indices for batch in batches])
    mask = np.concatenate([batch.image_mask for batch in batches])
    assert len(batches) == 3
    np.testing.assert_array_equal(indices[mask], np.arange(NUM_IMAGES))
    np.testing.assert_array_equal(mask, np.arange(12) < NUM_IMAGES)


def test_evaluation_fills_a_batch_larger_than_the_data_set(shapes):
    (batch,) = evaluation_batches(shapes, CONFIG, batch_size=16)
    assert batch.images.shape[0] == 16
    assert batch.image_mask.sum() == NUM_IMAGES


def test_evaluation_goes_canvas_by_canvas_in_order(mixed):
    batches = list(evaluation_batches(mixed, MIXED, batch_size=4))
    assert [b.images.shape[1:3] for b in batches] == (
        [(24, 48)] * 3 + [(48, 24)] * 2 + [(32, 32)]
    )
    order = np.concatenate([batch.indices[batch.image_mask] for batch in batches])
    expected = sorted(range(19), key=lambda i: MIXED.canvases.index(SIZES[i]))
    np.testing.assert_array_equal(order, expected)


def test_evaluation_with_a_worker_equals_evaluation_without(shapes):
    alone = list(evaluation_batches(shapes, CONFIG, batch_size=4))
    config = dataclasses.replace(CONFIG, num_workers=1)
    assert_same(list(evaluation_batches(shapes, config, batch_size=4)), alone)


def test_images_of_different_sizes_share_a_canvas(voc_folder, voc_object):
    voc_folder.add("tall", [voc_object("x", 1, 1, 20, 40)], size=(40, 20))
    voc_folder.add("wide", [voc_object("x", 1, 1, 50, 10)], size=(10, 50))
    voc_folder.split("all", ["tall", "wide"])
    source = open_voc(voc_folder.root, "all")
    config = dataclasses.replace(CONFIG, shorter_side=32)
    (batch,) = evaluation_batches(source, config, batch_size=2)
    np.testing.assert_array_equal(batch.image_sizes, [[64, 32], [13, 64]])
    np.testing.assert_allclose(batch.boxes[:, 0, 2:], batch.image_sizes)
    np.testing.assert_allclose(batch.scales, [[1.6, 1.6], [1.3, 1.28]])


def test_an_image_larger_than_the_canvas_is_refused_at_once(shapes):
    config = dataclasses.replace(CONFIG, canvases=((48, 59), (64, 48)))
    message = r"image train-000000 is 48x60 .* canvases is 48x59, 64x48"
    with pytest.raises(UserError, match=message):
        train_batches(shapes, config, **TRAINING)


def test_too_many_objects_are_refused_at_once(shapes):
    config = dataclasses.replace(CONFIG, max_objects=1)
    with pytest.raises(UserError, match=r"image train-\d+ has \d objects.* is 1"):
        evaluation_batches(shapes, config, batch_size=4)


def test_an_empty_data_set_is_refused():
    empty = ShapesSource(num_images=0, image_size=(40, 50), seed=0, split="train")
    with pytest.raises(UserError, match="no images"):
        train_batches(empty, CONFIG, **TRAINING)


def test_the_fingerprint_changes_with_any_annotation_and_nothing_else(voc_folder):
    def annotate(*objects, size=(60, 80), name="a"):
        voc_folder.add(name, objects, size=size)
        voc_folder.split("all", [name])
        source = open_voc(voc_folder.root, "all", class_names=("x", "y"))
        return fingerprint(source)

    plain = voc_object("x", 1, 1, 9, 9)
    same = annotate(plain), annotate(plain)
    assert same[0] == same[1]
    assert len(same[0]) == 16
    int(same[0], 16)
    others = [
        annotate(),
        annotate(plain, plain),
        annotate(voc_object("y", 1, 1, 9, 9)),
        annotate(voc_object("x", 1, 1, 9, 8)),
        annotate(voc_object("x", 1, 1, 9, 9, "<difficult>1</difficult>")),
        annotate(plain, size=(60, 81)),
        annotate(plain, name="b"),
    ]
    renamed = open_voc(voc_folder.root, "all", class_names=("x", "z"))
    assert len({same[0], *others, fingerprint(renamed)}) == 9


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_image_surfaces_with_its_path(voc_folder, voc_object, num_workers):
    voc_folder.add("a", [voc_object("x", 1, 1, 9, 9)])
    voc_folder.truncate("a")
    voc_folder.split("all", ["a"])
    source = open_voc(voc_folder.root, "all")
    config = dataclasses.replace(CONFIG, num_workers=num_workers)
    batches = train_batches(source, config, **TRAINING)
    with pytest.raises(UserError, match=r"cannot read image .*/a\.jpg") as error:
        next(batches)
    assert "\n" not in str(error.value)
    batches.close()
