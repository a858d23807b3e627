"""The crops that a recogniser is scored on, with their texts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from compress.data.images import LoadedList
from compress.data.labels import skipped_share
from compress.errors import DataError
from compress.tasks.base import Case, Examination
from compress.tasks.padded_crops import PaddedCrops
from compress.tasks.words import METRIC, reading_error, score_texts


class ValidationWords:
    """Validation crops, kept resized, with the widths that they are padded to and their texts.

    Args:
        lists: as they were read; an empty text has nothing to score.
        crops: how they are resized.
        metric_name: what the share of texts read exactly is called.

    Raises:
        DataError: there is nothing to validate on.
    """

    def __init__(self, lists: Sequence[LoadedList], crops: PaddedCrops, metric_name: str) -> None:
        pairs = [pair for part in lists for pair in zip(part.images, part.entries, strict=True) if pair[1].text]
        if not pairs:
            raise DataError(
                "val: no images to validate on. Name at least one label list with readable, labelled images."
            )
        self.images = [crops.resize(image) for image, _ in pairs]
        self.widths = crops.buckets([image for image, _ in pairs])
        self._texts = [entry.text for _, entry in pairs]
        self._names = [entry.image.name for _, entry in pairs]
        self._metric_name = metric_name
        total = sum(part.total for part in lists)
        self.skipped = skipped_share([(total - len(pairs), total)])
        """What of the lists is not scored, in words."""

    def __len__(self) -> int:
        return len(self.images)

    def examine(self, read: Mapping[int, str | None], chosen: np.ndarray) -> Examination:
        """The examination of chosen crops, by what was read in each."""
        readings = [read[int(index)] for index in chosen]
        score, tallies = score_texts(readings, [self._texts[index] for index in chosen])
        score = replace(score, name=self._metric_name, skipped=self.skipped)
        tallies[self._metric_name] = tallies.pop(METRIC)
        return Examination(score, tuple(self._judge(int(index), read[int(index)]) for index in chosen), tallies)

    def figures(self) -> tuple[str, ...]:
        """The metric, and `alnum` where a text holds letters or digits (see `score_texts`)."""
        tallies = score_texts(self._texts, self._texts)[1]
        return tuple(self._metric_name if figure == METRIC else figure for figure in tallies)

    def _judge(self, index: int, read: str | None) -> Case:
        text = self._texts[index]
        return Case(index, self._names[index], text, read, reading_error(read, text))
