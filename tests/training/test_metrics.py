"""What the log reports of some steps, from metrics made by hand."""

import json

import jax
import numpy as np
import pytest

from frcnn_jax.errors import UserError
from frcnn_jax.models import Losses, SamplingStats
from frcnn_jax.training.metrics import NUM_HARDEST, MetricsAccumulator
from frcnn_jax.training.step import Metrics
from tests.helpers.run_files import TIMES

IMAGE_IDS = [f"image{index:02d}" for index in range(20)]


def make_accumulator(steps_per_epoch=100, max_bad_steps=10):
    return MetricsAccumulator(IMAGE_IDS, steps_per_epoch, max_bad_steps)


def make_metrics(indices, image_mask=None, num_bad_steps=0, is_finite=True, **values):
    """Metrics of a batch; a loss that is not given is 0."""
    shape = len(indices)
    fields = {
        name: np.broadcast_to(np.float32(values.pop(name, 0.0)), shape)
        for name in Losses._fields
    }
    stats = {
        name: np.broadcast_to(np.float32(values.pop(name, 0.0)), shape)
        for name in SamplingStats._fields
    }
    return Metrics(
        losses=Losses(**fields),
        stats=SamplingStats(**stats),
        indices=np.array(indices, np.int32),
        image_mask=np.ones(shape, bool) if image_mask is None else np.array(image_mask),
        gradient_norm=np.float32(values.pop("gradient_norm", 1.0)),
        is_finite=np.bool_(is_finite),
        num_bad_steps=np.int32(num_bad_steps),
        **values,
    )


def bad_metrics(indices=(1, 2), num_bad_steps=1, **values):
    return make_metrics(indices, num_bad_steps=num_bad_steps, is_finite=False, **values)


def without_times(row):
    return {name: value for name, value in row.items() if name not in TIMES}


def to_json(value):
    """What a file gives back; fails for NaN and infinity, which JSON has not."""
    return json.loads(json.dumps(value, allow_nan=False))


def test_row_holds_the_means_over_steps_of_the_means_over_images():
    accumulator = make_accumulator(steps_per_epoch=4)
    accumulator.add(
        1, make_metrics([0, 1], roi_classification_loss=[1, 3], gradient_norm=5.0)
    )
    accumulator.add(
        2, make_metrics([2, 3], rpn_localization_loss=0.5, num_positive_rois=6)
    )
    row = accumulator.flush(2)
    assert list(row)[:5] == ["loss", *Losses._fields]
    assert row["roi_classification_loss"] == 1.0
    assert row["rpn_localization_loss"] == 0.25
    assert row["loss"] == 1.25
    assert row["num_positive_rois"] == 3.0
    assert row["gradient_norm"] == 3.0
    assert row["epoch"] == 0.5
    assert row["bad_steps"] == 0
    assert row["images_per_second"] > 0.0
    assert 0.0 <= row["input_wait_share"] <= 1.0


def test_at_most_two_steps_are_in_flight(monkeypatch):
    waited = []
    monkeypatch.setattr(
        jax, "block_until_ready", lambda pending: waited.append(pending[0])
    )
    accumulator = make_accumulator()
    for step in range(1, 6):
        accumulator.add(step, make_metrics([1, 2]))
    assert waited == [1, 2, 3]


def test_next_window_starts_empty():
    accumulator = make_accumulator()
    accumulator.add(1, make_metrics([0], roi_classification_loss=9.0))
    accumulator.flush(1)
    accumulator.add(2, make_metrics([0], roi_classification_loss=2.0))
    assert accumulator.flush(2)["loss"] == 2.0


def test_padding_images_are_excluded_from_means_and_hardest_images():
    accumulator = make_accumulator(steps_per_epoch=1)
    losses = [1.0, np.nan, 3.0]
    metrics = make_metrics([4, 5, 6], [True, False, True], rpn_localization_loss=losses)
    accumulator.add(1, metrics)
    assert accumulator.flush(1)["loss"] == 2.0
    assert [image["image_id"] for image in accumulator.hardest[0]["images"]] == [
        "image06",
        "image04",
    ]
    assert not accumulator.bad_steps


def test_bad_step_names_its_images_and_losses_and_stays_out_of_the_means():
    accumulator = make_accumulator()
    accumulator.add(1, make_metrics([0, 3], roi_classification_loss=1.0))
    accumulator.add(
        2,
        bad_metrics(
            (7, 8),
            roi_classification_loss=[np.nan, 5.0],
            rpn_localization_loss=np.inf,
        ),
    )
    row = accumulator.flush(2)
    assert row["loss"] == 1.0
    assert row["bad_steps"] == 1
    assert accumulator.bad_steps == [
        {
            "step": 2,
            "not_finite": [
                "rpn_localization_loss of image image07",
                "rpn_localization_loss of image image08",
                "roi_classification_loss of image image07",
            ],
        }
    ]


def test_bad_gradient_names_the_real_images_of_its_batch():
    accumulator = make_accumulator()
    metrics = bad_metrics((1, 2, 3), image_mask=[True, True, False])
    accumulator.add(4, metrics._replace(gradient_norm=np.float32(np.nan)))
    accumulator.flush(4)
    (row,) = accumulator.bad_steps
    assert row == {"step": 4, "not_finite": ["gradient of images image01, image02"]}


def test_window_of_bad_steps_only_has_a_row_without_losses():
    accumulator = make_accumulator()
    accumulator.add(1, bad_metrics(roi_classification_loss=np.nan))
    row = accumulator.flush(1)
    assert set(row) == {"epoch", "bad_steps", *TIMES}
    assert to_json(row)["bad_steps"] == 1


def test_run_ends_in_one_line_after_max_bad_steps():
    accumulator = make_accumulator(max_bad_steps=2)
    accumulator.add(1, bad_metrics(num_bad_steps=1))
    accumulator.flush(1)
    accumulator.raise_if_too_many_skipped()
    accumulator.add(2, bad_metrics(num_bad_steps=2))
    accumulator.flush(2)
    with pytest.raises(UserError, match=r"^2 updates .*bad_steps\.jsonl.*$") as caught:
        accumulator.raise_if_too_many_skipped()
    assert "\n" not in str(caught.value)


def random_metrics(step):
    """Losses with digits to lose; steps 3 and 8 are bad; batches of four."""
    rng = np.random.default_rng(step)
    losses = {name: rng.random(4) for name in Losses._fields}
    if is_bad := step in (3, 8):
        losses[Losses._fields[0]][1] = np.nan
    return make_metrics(
        [(4 * step + row) % len(IMAGE_IDS) for row in range(4)],
        num_bad_steps=(step >= 3) + (step >= 8),
        is_finite=not is_bad,
        gradient_norm=rng.random(),
        **losses,
    )


def rows_of(accumulator, steps):
    """Rows at step 6 and 12, and everything else to be logged."""
    rows = []
    for step in steps:
        accumulator.add(step, random_metrics(step))
        if step % 6 == 0:
            rows.append(without_times(accumulator.flush(step)))
    return rows, accumulator.bad_steps, accumulator.hardest


@pytest.mark.parametrize("last_step", [2, 4, 5, 6, 9, 11])
def test_restored_accumulator_reports_the_same_bit_for_bit(last_step):
    expected = rows_of(make_accumulator(steps_per_epoch=5), range(1, 13))
    before, after = (make_accumulator(steps_per_epoch=5) for _ in range(2))
    rows_before = rows_of(before, range(1, last_step + 1))
    state = to_json(before.state())
    after.restore(state, num_bad_steps=before._num_bad_steps)
    rows_after = rows_of(after, range(last_step + 1, 13))
    assert [a + b for a, b in zip(rows_before, rows_after, strict=True)] == list(
        expected
    )


def test_state_is_that_of_its_step_whenever_it_is_written():
    accumulator = make_accumulator(steps_per_epoch=100)
    accumulator.add(1, random_metrics(1))
    state = accumulator.state()
    saved = to_json(state)
    for step in (2, 3):
        accumulator.add(step, random_metrics(step))
    accumulator.state()
    assert to_json(state) == saved


def hardest_of(*batches):
    """The hardest images of an epoch of these batches of (index, loss)."""
    accumulator = make_accumulator(steps_per_epoch=len(batches))
    for step, batch in enumerate(batches, start=1):
        indices, losses = zip(*batch, strict=True)
        accumulator.add(step, make_metrics(indices, rpn_classification_loss=losses))
    accumulator.flush(len(batches))
    (row,) = to_json(accumulator.hardest)
    assert row["step"] == len(batches)
    assert row["epoch"] == 1
    return [(image["image_id"], image["loss"]) for image in row["images"]]


def test_hardest_images_are_the_ten_of_largest_loss():
    losses = np.random.default_rng(0).permutation(len(IMAGE_IDS)).tolist()
    batches = np.array_split(list(enumerate(losses)), 5)
    expected = sorted(zip(losses, IMAGE_IDS, strict=True), reverse=True)
    assert hardest_of(*batches) == [(i, loss) for loss, i in expected[:NUM_HARDEST]]


def test_equal_losses_are_ordered_by_image():
    pairs = [(index, 1.0) for index in range(12)]
    expected = [(image_id, 1.0) for image_id in IMAGE_IDS[:NUM_HARDEST]]
    assert hardest_of(pairs) == expected
    assert hardest_of(pairs[6:][::-1], pairs[:6]) == expected


def test_losses_that_are_not_finite_come_first_as_null():
    pairs = [(3, 1e30), (4, np.inf), (2, np.nan), (5, -np.inf), (0, 1.0)]
    assert hardest_of(pairs) == [
        ("image02", None),
        ("image04", None),
        ("image05", None),
        ("image03", float(np.float32(1e30))),
        ("image00", 1.0),
    ]


def test_epoch_that_ends_inside_a_window_has_its_own_hardest_images():
    accumulator = make_accumulator(steps_per_epoch=2)
    for step in range(1, 6):
        accumulator.add(step, make_metrics([step], rpn_localization_loss=10.0 - step))
    accumulator.flush(5)
    first, second = accumulator.hardest
    assert (first["step"], first["epoch"]) == (2, 1)
    assert (second["step"], second["epoch"]) == (4, 2)
    ids = [[image["image_id"] for image in row["images"]] for row in (first, second)]
    assert ids == [["image01", "image02"], ["image03", "image04"]]


def test_excluded_time_does_not_count_but_the_steps_before_it_do(monkeypatch):
    clock = iter([0.0, 3.0, 7.0, 9.0, 10.0, 14.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    accumulator = make_accumulator()  # at 0
    accumulator.next_batch(iter([None]))  # 3 to 7
    accumulator.add(1, make_metrics([0, 1, 2]))
    with accumulator.exclude_from_timing():  # 9 to 10
        assert not accumulator._pending
    clock = iter([11.0, 11.0])
    row = accumulator.flush(1)
    assert row["images_per_second"] == pytest.approx(3 / 10)
    assert row["input_wait_share"] == pytest.approx(4 / 10)
