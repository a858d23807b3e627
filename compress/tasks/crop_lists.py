"""The lists that a task on crops is made of, while it is made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compress.artifacts import fingerprint
from compress.data.images import LoadedList, content_parts, stored_in
from compress.data.overlap import Stored
from compress.data.streaming import StoredList, StreamedList

TRAIN_HEIGHT = 2
"""Training crops taller than this times the input's height are shrunk to it once, when they are decoded."""


@dataclass(frozen=True)
class CropLists:
    """Lists as they were read; those to train on are either in memory or streamed."""

    train: Sequence[LoadedList]
    streamed: Sequence[StreamedList]
    val: Sequence[LoadedList]
    unlabelled: Sequence[LoadedList]

    def warnings(self) -> tuple[str, ...]:
        """What was counted, named and skipped while reading."""
        lists: list[LoadedList | StreamedList] = [*self.train, *self.streamed, *self.val, *self.unlabelled]
        return tuple(line for part in lists for line in part.warnings)

    def stored(self) -> dict[str, Sequence[Stored]]:
        """The images of each list as they are stored."""
        return {
            "train": StoredList(self.streamed) if self.streamed else stored_in(self.train),
            "unlabelled": stored_in(self.unlabelled),
            "val": stored_in(self.val),
        }

    def fingerprint(self, kind: str, settings: dict[str, Any], skipped: Sequence[str]) -> str:
        """A task's identity: its kind and settings, texts and pixels of labelled lists, and what of them is skipped."""
        return fingerprint(
            kind,
            settings,
            *(part for listed in self.streamed for part in listed.content_parts()),
            *content_parts(self.train),
            "val",
            *content_parts(self.val),
            *skipped,
        )
