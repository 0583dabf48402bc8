"""The order of training and evaluation: complete, pure, one canvas to a batch."""

import concurrent.futures
import pickle

import numpy as np
import pytest

from frcnn_jax.data.sampler import BatchSampler, PlannedBatch, plan_evaluation

# 23 images: 14 on canvas 0, none on 1, 8 on 2 and one on 3.
CANVASES = np.random.default_rng(0).permutation([0] * 14 + [2] * 8 + [3])


def make_sampler(batch_size=4, seed=0, canvas_indices=CANVASES):
    return BatchSampler(canvas_indices, batch_size, seed)


def epoch_of(sampler, epoch):
    steps = range(
        epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch
    )
    return [sampler.batch(step) for step in steps]


def real_images(batches):
    return np.concatenate([batch.indices[batch.image_mask] for batch in batches])


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        for field, value, expected in zip(
            PlannedBatch._fields, batch, other, strict=True
        ):
            np.testing.assert_array_equal(value, expected, err_msg=field)


@pytest.mark.parametrize(
    ("batch_size", "num_steps"), [(1, 23), (2, 12), (3, 9), (4, 7), (14, 3), (99, 3)]
)
def test_every_epoch_has_each_image_once_in_as_many_steps(batch_size, num_steps):
    sampler = make_sampler(batch_size)
    assert sampler.steps_per_epoch == num_steps
    for epoch in range(5):
        assert sorted(real_images(epoch_of(sampler, epoch))) == list(range(23))


@pytest.mark.parametrize("num_images", [1, 7, 8])
def test_one_canvas_needs_the_images_divided_by_the_batch_size_rounded_up(num_images):
    sampler = make_sampler(4, canvas_indices=np.zeros(num_images, int))
    assert sampler.steps_per_epoch == -(-num_images // 4)
    assert sorted(real_images(epoch_of(sampler, 3))) == list(range(num_images))


@pytest.mark.parametrize("batch_size", [1, 3, 4, 99])
def test_a_batch_has_images_of_its_canvas_only(batch_size):
    for batch in epoch_of(make_sampler(batch_size), 2):
        assert batch.indices.shape == batch.image_mask.shape == (batch_size,)
        assert set(CANVASES[batch.indices]) == {batch.canvas_index}


def test_filler_is_masked_and_comes_from_the_beginning_of_its_canvas():
    sampler = make_sampler(4)
    num_masked = {0: 2, 2: 0, 3: 3}
    masked = dict.fromkeys(num_masked, 0)
    for batch in epoch_of(sampler, 1):
        masked[batch.canvas_index] += (~batch.image_mask).sum()
        assert batch.image_mask[0]
        assert (np.diff(batch.image_mask.astype(int)) <= 0).all()  # Filler comes last.
    assert masked == num_masked

    (batch,) = epoch_of(make_sampler(5, canvas_indices=np.zeros(3, int)), 4)
    np.testing.assert_array_equal(batch.indices[3:], batch.indices[:2])
    (batch,) = epoch_of(make_sampler(7, canvas_indices=np.zeros(3, int)), 4)
    np.testing.assert_array_equal(batch.indices[3:6], batch.indices[:3])


def test_filled_batches_come_anywhere_in_an_epoch():
    sampler = make_sampler(4)
    positions = {
        position
        for epoch in range(40)
        for position, batch in enumerate(epoch_of(sampler, epoch))
        if batch.canvas_index == 3
    }
    assert positions == set(range(sampler.steps_per_epoch))


def test_an_epoch_alone_equals_the_epoch_reached_by_iteration():
    reached = make_sampler()
    for epoch in range(7):
        epoch_of(reached, epoch)
    assert_same(epoch_of(make_sampler(), 7), epoch_of(reached, 7))


def test_a_step_alone_equals_the_step_reached_from_any_other():
    expected = [make_sampler().batch(step) for step in range(30)]
    sampler = make_sampler()
    for step in np.random.default_rng(1).permutation(30):
        assert_same([sampler.batch(step)], [expected[step]])


def test_epochs_and_seeds_differ():
    orders = {
        tuple(real_images(epoch_of(make_sampler(seed=seed), epoch)))
        for seed in range(5)
        for epoch in range(5)
    }
    assert len(orders) == 25


def test_every_image_has_one_uniform_draw_an_epoch():
    draws = np.full((200, 23), np.nan)
    for epoch in range(200):
        for batch in epoch_of(make_sampler(seed=3), epoch):
            draws[epoch, batch.indices] = batch.draws
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    # Six standard errors of 200 uniform numbers, and of all 4600.
    np.testing.assert_allclose(draws.mean(axis=0), 0.5, atol=6 * 0.289 / 200**0.5)
    np.testing.assert_allclose((draws < 0.3).mean(), 0.3, atol=6 * 0.46 / 4600**0.5)
    assert len(np.unique(draws)) == draws.size


def test_a_pickled_sampler_is_the_same_before_and_after_use():
    fresh, used = make_sampler(), make_sampler()
    expected = epoch_of(used, 2)
    for sampler in (fresh, used):
        assert_same(epoch_of(pickle.loads(pickle.dumps(sampler)), 2), expected)


def test_threads_see_the_same_order():
    expected = [make_sampler().batch(step) for step in range(200)]
    sampler = make_sampler()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert_same(list(pool.map(sampler.batch, range(200))), expected)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 99])
def test_evaluation_has_each_image_once_sorted_by_canvas(batch_size):
    batches = plan_evaluation(CANVASES, batch_size)
    assert len(batches) == make_sampler(batch_size).steps_per_epoch
    expected = np.argsort(CANVASES, kind="stable")
    np.testing.assert_array_equal(real_images(batches), expected)
    for batch in batches:
        assert set(CANVASES[batch.indices]) == {batch.canvas_index}
        assert not batch.draws.any()
