"""Sampling: exact counts, uniform, blind to padding and to JAX's flags."""

import collections
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from frcnn_jax import ops
from frcnn_jax.ops.sampling import split_key, uniform

sample_indices = jax.jit(ops.sample_indices, static_argnums=2)


def drawn(key, mask, max_samples):
    """The sample as a list, in the order drawn."""
    indices, count = sample_indices(key, np.asarray(mask), max_samples)
    assert indices.dtype == jnp.int32
    return np.asarray(indices)[: int(count)].tolist()


@pytest.fixture(scope="module")
def key():
    return jax.random.key(0)


@pytest.fixture(scope="module")
def mask():
    """20 entries, 9 of them candidates."""
    return np.isin(np.arange(20), [1, 2, 4, 7, 8, 12, 13, 18, 19])


@pytest.mark.parametrize(
    ("max_samples", "expected"), [(0, 0), (1, 1), (8, 8), (9, 9), (10, 9), (50, 9)]
)
def test_as_many_as_there_are_or_as_asked_for_are_drawn(
    key, mask, max_samples, expected
):
    sample = drawn(key, mask, max_samples)
    assert len(sample) == expected
    assert len(set(sample)) == expected
    assert mask[sample].all()


def test_the_result_has_a_slot_for_every_sample_but_no_more_than_entries(key, mask):
    assert sample_indices(key, mask, 8)[0].shape == (8,)
    assert sample_indices(key, mask, 50)[0].shape == (20,)


@pytest.mark.parametrize("size", [0, 1, 5])
def test_without_candidates_nothing_is_drawn(key, size):
    assert drawn(key, np.zeros(size, bool), 3) == []


def test_a_single_candidate_is_drawn(key):
    assert drawn(key, [True], 3) == [0]
    assert drawn(key, [False, False, True], 1) == [2]


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_every_ordered_pair_is_equally_likely(impl):
    mask = jnp.array([True, False, True, True, False, True])
    keys = jax.random.split(jax.random.key(1, impl=impl), 2000)
    sample = functools.partial(ops.sample_indices, max_samples=2)
    indices, count = jax.jit(jax.vmap(sample, in_axes=(0, None)))(keys, mask)
    assert (count == 2).all()
    counts = collections.Counter(map(tuple, indices.tolist()))
    pairs = list(itertools.permutations([0, 2, 3, 5], 2))
    assert counts.keys() == set(pairs)
    assert scipy.stats.chisquare([counts[pair] for pair in pairs]).pvalue > 0.01


def test_a_key_gives_its_sample_again_and_another_key_another(key, mask):
    assert drawn(key, mask, 6) == drawn(key, mask, 6)
    others = [drawn(jax.random.key(seed), mask, 6) for seed in range(1, 6)]
    assert any(other != drawn(key, mask, 6) for other in others)


def test_the_sample_does_not_depend_on_where_other_entries_lie(key, mask):
    candidates = np.flatnonzero(mask)
    ranks = [candidates.tolist().index(i) for i in drawn(key, mask, 6)]
    for seed in range(5):
        place = np.random.default_rng(seed).choice(20, 9, replace=False)
        moved = np.isin(np.arange(20), place)
        expected = np.sort(place)[ranks].tolist()
        assert drawn(key, moved, 6) == expected


@pytest.mark.parametrize("extra", [1, 7, 300])
def test_the_sample_does_not_depend_on_trailing_padding(key, mask, extra):
    padded = np.concatenate([mask, np.zeros(extra, bool)])
    assert drawn(key, padded, 6) == drawn(key, mask, 6)


def test_jit_equals_eager(key, mask):
    indices, count = ops.sample_indices(key, jnp.asarray(mask), 6)
    assert indices[:count].tolist() == drawn(key, mask, 6)


def test_vmap_equals_a_loop(mask):
    keys = jax.random.split(jax.random.key(2), 3)
    masks = np.stack([mask, ~mask, np.zeros(20, bool)])
    sample = functools.partial(ops.sample_indices, max_samples=10)
    indices, count = jax.jit(jax.vmap(sample))(keys, masks)
    assert count.tolist() == [9, 10, 0]
    for image in range(3):
        together = np.asarray(indices)[image, : count[image]].tolist()
        assert together == drawn(keys[image], masks[image], 10)


def test_wrong_arguments_are_refused(key, mask):
    with pytest.raises(ValueError, match=r"^max_samples is -1"):
        sample_indices(key, mask, -1)
    with pytest.raises(ValueError, match=r": mask has type float32, expected bool"):
        sample_indices(key, mask.astype(np.float32), 3)
    with pytest.raises(ValueError, match=r": mask has shape"):
        sample_indices(key, mask[None], 3)


FLAGS = {
    "rbg": functools.partial(jax.default_prng_impl, "rbg"),
    "not partitionable": functools.partial(jax.threefry_partitionable, False),
    "x64": functools.partial(jax.enable_x64, True),
}


@pytest.fixture(params=FLAGS)
def flag(request):
    return FLAGS[request.param]


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_random_numbers_are_those_of_jax_by_default(key, count):
    numbers = uniform(key, count)
    assert numbers.dtype == jnp.float32
    np.testing.assert_array_equal(numbers, jax.random.uniform(key, (count,)))
    keys, expected = split_key(key, count), jax.random.split(key, count)
    np.testing.assert_array_equal(*map(jax.random.key_data, (keys, expected)))


def test_random_numbers_do_not_depend_on_jaxs_flags(key, flag):
    def draw(key):
        keys = split_key(key, 3)
        return jax.random.key_data(keys), uniform(keys[1], 100)

    expected = draw(key)
    with flag():
        result = draw(key), jax.jit(draw)(key)
    for arrays in result:
        for array, other in zip(arrays, expected, strict=True):
            assert array.dtype == other.dtype
            np.testing.assert_array_equal(array, other)


def test_the_sample_does_not_depend_on_jaxs_flags(key, mask, flag):
    expected = drawn(key, mask, 6)
    padded = np.concatenate([mask, np.zeros(300, bool)])
    with flag():
        assert drawn(key, mask, 6) == expected
        assert drawn(key, padded, 6) == expected


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_with_other_keys_the_sample_does_not_depend_on_neighbors_or_padding(mask, impl):
    keys = jax.random.split(jax.random.key(2, impl=impl), 3)
    sample = functools.partial(ops.sample_indices, mask=jnp.asarray(mask))
    indices, _ = jax.vmap(functools.partial(sample, max_samples=6))(keys)
    alone = [drawn(one, mask, 6) for one in keys]
    assert indices.tolist() == alone
    assert alone[0] != alone[1]
    padded = np.concatenate([mask, np.zeros(300, bool)])
    assert drawn(keys[1], padded, 6) == alone[1]


def test_an_rbg_key_gives_the_sample_of_the_threefry_key_of_its_seed(mask):
    keys = (jax.random.key(4, impl=impl) for impl in ("threefry2x32", "rbg"))
    first, second = (drawn(jax.random.fold_in(key, 1), mask, 6) for key in keys)
    assert first == second
