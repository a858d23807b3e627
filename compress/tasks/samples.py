"""Crops to judge the direction of: from lists that are in memory, and from streamed ones."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from compress.data.images import LoadedList
from compress.data.labels import skipped_warning
from compress.data.overlap import digest_of
from compress.data.streaming import Streamed, StreamedList, find_part
from compress.errors import DataError
from compress.progress import Progress


@dataclass(frozen=True)
class Sample:
    """One crop as it is fed: uint8 BGR [h, w, 3], turned by 180 degrees first where `turn`; `target` is the class."""

    image: np.ndarray
    turn: bool
    target: int
    name: str = ""
    """Of its file."""
    probabilities: tuple[float, ...] | None = None
    """What the original model says of an image without label; `target` is the class that it holds most likely."""
    instead_of: tuple[str, ...] = ()
    """Names of damaged images in whose place it stands."""

    def upright(self) -> np.ndarray:
        """The image, turned where it must be."""
        return cv2.rotate(self.image, cv2.ROTATE_180) if self.turn else self.image


def number_crops(samples: Sequence[Sample], *, by_content: bool = False) -> np.ndarray:
    """The number of each sample's crop [N]: a crop and the same one turned have one.

    `by_content`: so have files of the same pixels, turned or not. Lists that a model labelled name crops and turned
    ones as files of their own.
    """
    numbers: dict[object, int] = {}
    name: Callable[[np.ndarray], object] = _crop_content if by_content else id
    return np.array([numbers.setdefault(name(sample.image), len(numbers)) for sample in samples])


def _crop_content(image: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    """What is the same for a crop uint8 [h, w, 3] and for the same one turned by 180 degrees."""
    return image.shape, min(digest_of(each.tobytes()) for each in (image, cv2.rotate(image, cv2.ROTATE_180)))


def tally_crops(right: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """What each crop adds to the accuracy's numerator and denominator, [crops, 2]; a crop may be judged twice.

    >>> tally_crops(np.array([True, False, True]), np.array([0, 0, 4])).tolist()
    [[1.0, 2.0], [1.0, 1.0]]
    """
    _, places = np.unique(crops, return_inverse=True)
    return np.stack([np.bincount(places, weights=right.astype(np.float64)), np.bincount(places)], axis=-1)


def make_samples(loaded: LoadedList, labels: tuple[str, ...], directions: bool | None) -> list[Sample]:
    """Turn one list into samples: as labelled, or each crop in both directions (see `DirectionTask`).

    Raises:
        DataError: a text that must be a label is none; the message names line and text.
    """
    named = list(zip(loaded.images, loaded.entries, strict=True))
    if are_word_crops(loaded.path, [(entry.line, entry.text) for entry in loaded.entries], labels, directions):
        return [Sample(image, turn, int(turn), entry.image.name) for image, entry in named for turn in (False, True)]
    return [Sample(image, False, labels.index(entry.text), entry.image.name) for image, entry in named]


def are_word_crops(
    path: Path, texts: Sequence[tuple[int, str]], labels: tuple[str, ...], directions: bool | None
) -> bool:
    """Whether directions are made from a list's crops, or its texts are labels.

    Args:
        path: the list.
        texts: (line, text) of each image.
        labels: of the task.
        directions: what the user said; None finds out.

    Raises:
        DataError: a text that must be a label is none; the message names line and text.
    """
    unknown = [(line, text) for line, text in texts if text not in labels]
    if directions is None:
        # Labels with a few typing errors are not word crops; word crops that read "0" or "180" are rare.
        directions = 2 * len(unknown) > len(texts)
    if unknown and not directions:
        raise DataError(
            f"{path}: line {unknown[0][0]}: unknown label {unknown[0][1]!r}. Allowed: {', '.join(labels)}. "
            "If these are upright word crops to make directions from, set directions: true."
        )
    return directions


def judged_samples(
    lists: Sequence[LoadedList],
    judge: Callable[[Sequence[Sample]], np.ndarray],
    turns: Sequence[bool],
    batch_size: int,
    on_progress: Progress | None = None,
) -> tuple[list[Sample], tuple[str, ...]]:
    """Samples of images without labels, with the probabilities that the original model gives for targets.

    Args:
        lists: the images.
        judge: samples -> the original's probabilities [N, K].
        turns: whether each image is turned, once for each sample that is made of it.
        batch_size: images that are judged together.
        on_progress: called as (images done, in all, message).

    Returns:
        The samples, and what is said of images that cannot be used.

    Raises:
        DataError: its output is not finite for any of them.
    """
    total, done = sum(len(part.images) for part in lists), 0
    found: list[Sample] = []
    warnings: list[str] = []
    for part in lists:
        named = list(zip(part.images, part.entries, strict=True))
        bad: dict[str, None] = {}
        for start in range(0, len(named), batch_size):
            several = named[start : start + batch_size]
            samples = [Sample(image, turn, 0, entry.image.name) for turn in turns for image, entry in several]
            for sample, row in zip(samples, judge(samples), strict=True):
                if np.isfinite(row).all():
                    found.append(replace(sample, target=int(row.argmax()), probabilities=tuple(row.tolist())))
                else:
                    bad[sample.name] = None
            done += len(several)
            if on_progress:
                on_progress(done, total, "judging images without labels with the original")
        warnings += skipped_warning(part.path, "the original model's output is not finite", list(bad), len(named))
    if not found:
        raise DataError(f"unlabelled: the original model's output is not finite for any of {total} images.")
    return found, tuple(warnings)


def make_targets(samples: Sequence[Sample], classes: int, *, probabilities: bool) -> Tensor:
    """Classes [N], or `probabilities` [N, K], which are one-hot where nobody judged an image."""
    chosen = torch.tensor([sample.target for sample in samples])
    if not probabilities:
        return chosen
    targets = torch.nn.functional.one_hot(chosen, classes).float()
    for row, sample in zip(targets, samples, strict=True):
        if sample.probabilities is not None:
            row[:] = torch.tensor(sample.probabilities)
    return targets


class StreamedSamples(Streamed):
    """The samples of streamed lists, and behind them others that are in memory; read as a list of `Sample` is.

    Args:
        lists: streamed lists.
        labels: of the task.
        directions: see `DirectionTask`.

    Raises:
        DataError: a text that must be a label is none.
    """

    def __init__(self, lists: Sequence[StreamedList], labels: tuple[str, ...], directions: bool | None) -> None:
        self._labels = labels
        self._turned = [
            are_word_crops(listed.path, list(enumerate(listed.texts, start=1)), labels, directions) for listed in lists
        ]
        counts = [len(listed) * (2 if turned else 1) for listed, turned in zip(lists, self._turned, strict=True)]
        super().__init__(lists, counts, sum(map(len, lists)))
        self._streamed = sum(counts)
        self._others: Sequence[Sample] = ()

    def __len__(self) -> int:
        return self._streamed + len(self._others)

    def __add__(self, others: Sequence[Sample]) -> "StreamedSamples":
        other = copy.copy(self)
        other._others = [*self._others, *others]
        return other

    def __getitem__(self, index: int) -> Sample:
        """A sample with its image; where that is damaged, the next one's, which names it in `instead_of`."""
        if index >= self._streamed:
            return self._others[index - self._streamed]
        damaged: list[str] = []
        for step in range(self._streamed):
            image, sample = self._read((index + step) % self._streamed)
            if image is not None:
                return replace(sample, image=image, instead_of=tuple(damaged))
            damaged.append(sample.name)
        raise DataError(f"{self.lists[0].path}: none of its images can be decoded. Copy them again.")

    def _read(self, index: int) -> tuple[np.ndarray | None, Sample]:
        number, place = find_part(self.starts, index)
        listed = self.lists[number]
        place, turn = divmod(place, 2) if self._turned[number] else (place, 0)
        target = turn if self._turned[number] else self._labels.index(listed.texts[place])
        return listed.image(place), Sample(_NOTHING, bool(turn), target, self.name_of(number, place))


_NOTHING = np.zeros((1, 1, 3), np.uint8)
