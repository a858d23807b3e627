"""Which images make which batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import DataError
from compress.tasks.sampling import (
    bucket_batches,
    count_steps,
    epoch_indices,
    epoch_size,
    fixed_sample,
    shuffled_batches,
)


@given(buckets=st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=60), size=st.integers(1, 20))
def test_an_epoch_is_full_batches_without_repeats(buckets, size):
    batches = shuffled_batches(buckets, epoch=1, batch_size=size, seed=2)
    used = np.concatenate(batches)
    assert len(batches) == count_steps(len(buckets), size)
    assert len(set(used.tolist())) == len(used)
    assert {len(batch) for batch in batches} == {min(size, len(buckets))}
    # At most one batch a boundary between buckets is mixed.
    kinds = np.asarray(buckets)
    assert sum(len(set(kinds[batch].tolist())) > 1 for batch in batches) <= 2


@given(count=st.integers(1, 40), size=st.integers(1, 10), seed=st.integers(0, 5))
def test_one_bucket_is_a_plain_shuffle(count, size, seed):
    order = np.random.default_rng([seed, 3]).permutation(count)
    used = np.concatenate(shuffled_batches([7] * count, epoch=3, batch_size=size, seed=seed))
    np.testing.assert_array_equal(used, order[: len(used)])


def test_a_small_bucket_is_met_in_the_end():
    """Three narrow images among 64 and batches of 8: no epoch leaves them out, since they go first."""
    batches = shuffled_batches([1] * 3 + [2] * 61, epoch=0, batch_size=8, seed=0)
    assert {0, 1, 2} <= set(np.concatenate(batches).tolist())


def test_batches_of_different_widths_come_mixed():
    firsts = [batch[0] < 40 for batch in shuffled_batches([1] * 40 + [2] * 40, epoch=0, batch_size=4, seed=0)]
    assert firsts != sorted(firsts, reverse=True)


def test_no_images():
    with pytest.raises(DataError, match="train: no images to train on"):
        count_steps(0, 4)


@given(st.lists(st.sampled_from([80, 160, 320]), max_size=40), st.integers(1, 9))
def test_bucket_batches_hold_each_index_once_and_one_bucket_each(buckets, size):
    kinds = np.array(buckets, int)
    batches = list(bucket_batches(np.arange(len(kinds)), kinds, size))
    assert sorted(index for batch in batches for index in batch) == list(range(len(kinds)))
    assert all(len(set(kinds[batch])) == 1 and len(batch) <= size for batch in batches)


def test_the_fixed_sample_is_fixed():
    np.testing.assert_array_equal(fixed_sample(50, 10), fixed_sample(50, 20)[:10])
    assert len(fixed_sample(5, None)) == 5


@given(st.integers(0, 12), st.integers(0, 30), st.integers(0, 3))
def test_an_epoch_holds_each_labelled_image_and_as_many_unlabelled_ones(labelled, unlabelled, seed):
    epochs = [epoch_indices(labelled, unlabelled, epoch=epoch, seed=seed) for epoch in range(5)]
    drawn = [epoch[labelled:] for epoch in epochs]
    assert {len(epoch) for epoch in epochs} == {epoch_size(labelled, unlabelled)}
    assert all(epoch[:labelled].tolist() == list(range(labelled)) for epoch in epochs)
    if unlabelled:
        assert {len(part) for part in drawn} == {labelled or unlabelled}
        counts = np.bincount(np.concatenate(drawn) - labelled, minlength=unlabelled)
        assert counts.max() - counts.min() <= 1, "None comes again before all others have come."
    else:
        assert not any(map(len, drawn))


def test_unlabelled_images_come_in_another_order_each_time():
    first, second = (epoch_indices(0, 20, epoch=epoch, seed=0).tolist() for epoch in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second) == list(range(20))
    assert first == epoch_indices(0, 20, epoch=0, seed=0).tolist() != epoch_indices(0, 20, epoch=0, seed=1).tolist()
