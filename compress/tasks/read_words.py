"""Words of images without labels: what the original model reads in them stands for their texts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from compress.data.charset import Charset
from compress.data.images import LoadedList
from compress.data.labels import skipped_warning
from compress.data.splices import is_spliced
from compress.errors import DataError
from compress.progress import Progress
from compress.tasks.words import Word, make_words

Read = Callable[[Sequence[np.ndarray]], Iterator[tuple[int, str | None]]]
"""Crops -> the place of each and what is read in it, in any order; None where the output is unusable."""


@dataclass(frozen=True)
class ReadWords:
    """What can be trained on, of which the last `spliced` are spliced, and what is said of the rest."""

    words: list[Word]
    spliced: int
    warnings: tuple[str, ...]


def read_words(
    lists: Sequence[LoadedList], read: Read, charset: Charset, on_progress: Progress | None = None
) -> ReadWords:
    """Label lists of crops by what is read in them; a crop in which nothing is read is skipped.

    Args:
        lists: the spliced ones last.
        read: the original model.
        charset: the model's.
        on_progress: called as (images done, in all, message).

    Raises:
        DataError: it reads nothing in any of them.
    """
    total, done = sum(len(part.images) for part in lists), 0
    words: list[Word] = []
    spliced = 0
    warnings: list[str] = []
    for part in lists:
        texts: dict[int, str] = {}
        for index, text in read(part.images):
            texts[index] = text or ""
            if on_progress:
                on_progress(done + len(texts), total, "reading images without labels with the original")
        done += len(texts)
        entries = tuple(replace(entry, text=texts[index]) for index, entry in enumerate(part.entries))
        made = make_words(replace(part, entries=entries), charset)
        words += made
        spliced += len(made) if is_spliced(part.path) else 0
        empty = [entry.image.name for entry in entries if not entry.text]
        pairs = zip(part.images, entries, strict=True)
        narrow = [entry.image.name for image, entry in pairs if image.shape[1] == 1]
        warnings += skipped_warning(part.path, "the original model reads nothing in them", empty, len(entries))
        warnings += skipped_warning(part.path, "one pixel wide", narrow, len(entries))
    if not words:
        raise DataError(
            f"unlabelled: the original model reads nothing in any of {total} images. Give crops of single words or "
            "lines, as the model reads them."
        )
    return ReadWords(words, spliced, tuple(warnings))
