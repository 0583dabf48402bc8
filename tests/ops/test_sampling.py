"""Sampling: exact counts, uniform, and blind to padding."""

import collections
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jaxtyping import TypeCheckError

from frcnn_jax import ops

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


def test_every_ordered_pair_is_equally_likely():
    mask = jnp.array([True, False, True, True, False, True])
    keys = jax.random.split(jax.random.key(1), 2000)
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
    with pytest.raises(TypeCheckError):
        sample_indices(key, mask.astype(np.float32), 3)
    with pytest.raises(ValueError, match=r": mask has shape"):
        sample_indices(key, mask[None], 3)
