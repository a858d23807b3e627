"""Which images make which batch: the same ones for the same (seed, epoch), whatever the process or thread."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from compress.errors import DataError

UNLABELLED = 0x756E6C
"""Keeps the order of unlabelled images apart from other random numbers of the same seed."""


def count_steps(images: int, batch_size: int) -> int:
    """Number of full batches in an epoch; one smaller one when there are fewer images than that.

    Raises:
        DataError: there is no training data.
    """
    if not images:
        raise DataError("train: no images to train on. Name at least one label list with readable, labelled images.")
    return max(1, images // batch_size)


def epoch_size(labelled: int, unlabelled: int) -> int:
    """Number of images in an epoch: see `epoch_indices`."""
    return labelled + (labelled or unlabelled if unlabelled else 0)


def epoch_indices(labelled: int, unlabelled: int, *, epoch: int, seed: int) -> np.ndarray:
    """Indices of an epoch's images: each labelled one, then as many unlabelled ones, numbered on from the labelled.

    Unlabelled ones are drawn without replacement from epoch to epoch: none comes again before all others have come, in
    an order of their own each time. Without labelled ones an epoch holds each unlabelled one.
    """
    drawn = epoch_size(labelled, unlabelled) - labelled
    if not drawn:
        return np.arange(labelled)
    first, last = epoch * drawn, (epoch + 1) * drawn - 1
    rounds = range(first // unlabelled, last // unlabelled + 1)
    order = np.concatenate([np.random.default_rng([seed, UNLABELLED, one]).permutation(unlabelled) for one in rounds])
    start = first - rounds[0] * unlabelled
    return np.concatenate([np.arange(labelled), labelled + order[start : start + drawn]])


def shuffled_batches(
    buckets: Sequence[int] | np.ndarray, *, epoch: int, batch_size: int, seed: int
) -> list[np.ndarray]:
    """Indices of each batch of an epoch: `count_steps` full batches, images of one bucket together.

    What is left of a bucket fills up the next larger one, so no small bucket is left out for good; what is left in the
    end waits for another epoch's shuffle: a batch of one or two would upset the running statistics of batch norm.
    """
    sizes = np.asarray(buckets)
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(sizes))
    batches: list[np.ndarray] = []
    waiting = order[:0]
    kinds = np.unique(sizes)
    for kind in kinds:
        waiting = np.concatenate([waiting, order[sizes[order] == kind]])
        full = len(waiting) // batch_size
        batches += [waiting[step * batch_size : (step + 1) * batch_size] for step in range(full)]
        waiting = waiting[full * batch_size :]
    if not batches:
        return [order]
    # Else each epoch would end with the widest images.
    return batches if len(kinds) == 1 else [batches[index] for index in rng.permutation(len(batches))]


WINDOW = 64
"""Batches that are put together from the same images, where widths are only known once images are looked at."""


def windowed_batches(
    images: int, bucket_of: Callable[[int], int | None], *, epoch: int, batch_size: int, seed: int
) -> Iterator[np.ndarray]:
    """As `shuffled_batches`, for images whose bucket is looked up when their turn comes: `WINDOW` batches at a time.

    Args:
        images: how many an epoch holds.
        bucket_of: place in the epoch -> bucket; None where the image cannot be used, which is then left out.
        epoch: from 1 on.
        batch_size: images of a batch.
        seed: of the order.
    """
    order = np.random.default_rng([seed, epoch]).permutation(images)
    size = WINDOW * batch_size
    for start in range(0, images, size):
        found = [(place, bucket_of(int(place))) for place in order[start : start + size]]
        places = np.array([place for place, bucket in found if bucket is not None], np.int64)
        buckets = [bucket for _, bucket in found if bucket is not None]
        if len(places) >= min(batch_size, images):
            for part in shuffled_batches(buckets, epoch=epoch * images + start, batch_size=batch_size, seed=seed):
                yield places[part]


def fixed_sample(images: int, limit: int | None) -> np.ndarray:
    """Indices of at most `limit` images, drawn once with a fixed seed: always the same ones."""
    return np.random.default_rng(0).permutation(images)[:limit]


def bucket_batches(indices: np.ndarray, buckets: Sequence[int] | np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Cut `indices` into batches of one bucket each, narrow buckets first, in their order otherwise."""
    of_index = np.asarray(buckets)[indices]
    for kind in np.unique(of_index):
        same = indices[of_index == kind]
        for start in range(0, len(same), batch_size):
            yield same[start : start + batch_size]


def image_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator that augments one image of one epoch."""
    return np.random.default_rng([seed, epoch, int(index)])
