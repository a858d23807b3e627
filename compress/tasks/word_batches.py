"""Which words make which batch, each of one width."""

from collections.abc import Iterator

import numpy as np

from compress.data.labels import ListRules
from compress.tasks.base import Share
from compress.tasks.loading import share_of
from compress.tasks.padded_crops import PaddedCrops
from compress.tasks.sampling import shuffled_batches, windowed_batches
from compress.tasks.words import StreamedWords, Word


def known_widths(words: list[Word] | StreamedWords, crops: PaddedCrops) -> np.ndarray | None:
    """Widths that words are padded to, [N]; None where their images are not looked at yet."""
    return None if isinstance(words, StreamedWords) else crops.buckets([word.image for word in words])


def word_batches(
    words: list[Word] | StreamedWords,
    widths: np.ndarray | None,
    indices: np.ndarray,
    crops: PaddedCrops,
    *,
    share: Share,
    rules: ListRules,
    epoch: int,
    batch_size: int,
    seed: int,
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """A process's share of each batch of an epoch: its words, their places in the epoch, and the batch's width.

    Args:
        words: to train on.
        widths: see `known_widths`.
        indices: the words of the epoch, in order.
        crops: how they are padded.
        share: which of each batch are this process's.
        rules: how many of streamed lists may turn out to be unusable.
        epoch: from 1 on.
        batch_size: words of a batch, of all processes together.
        seed: of the order.
    """
    if not isinstance(words, StreamedWords):
        assert widths is not None
        known = widths[indices]
        for places in shuffled_batches(known, epoch=epoch, batch_size=batch_size, seed=seed):
            mine = share_of(places, share)
            yield indices[mine], mine, int(known[places].max())
        return
    found: dict[int, int] = {}

    def width_of(place: int) -> int | None:
        size = words.size(int(indices[place]))
        if size is None:
            return None
        found[place] = crops.bucket(*size)
        return found[place]

    for places in windowed_batches(len(indices), width_of, epoch=epoch, batch_size=batch_size, seed=seed):
        mine = share_of(places, share)
        yield indices[mine], mine, max(found.pop(int(place)) for place in places)
        words.check_met(rules)
