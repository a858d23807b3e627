"""What a detector made of one image, for people to look at."""

from collections.abc import Sequence

import numpy as np

from compress.data.regions import Region
from compress.progress import count_of
from compress.tasks.base import Case, Mark, MarkKind
from compress.tasks.hmean import Matches, score_matches

ERROR_NAME = "1 - hmean of the image"


def judge_scene(
    index: int, name: str, regions: Sequence[Region], boxes: np.ndarray, matches: Matches, usable: bool = True
) -> Case:
    """One image's case.

    Args:
        index: of the image, for its task.
        name: of its file.
        regions: of its label.
        boxes: the model's, [B, 4, 2] in the image's pixels.
        matches: which of them belong together.
        usable: the model's output was finite.
    """
    ignored = len(regions) - len(matches.counted_regions)
    counted = len(matches.counted_regions)
    label = count_of(counted, "region") + (f", {ignored} not counted" if ignored else "")
    found = f"{len(matches.pairs)} of {counted} found, {len(matches.wrong)} wrong"
    error = 1.0 - score_matches([matches]).metric
    return Case(index, name, label, found if usable else None, error, mark_scene(regions, boxes, matches))


def mark_scene(regions: Sequence[Region], boxes: np.ndarray, matches: Matches) -> tuple[Mark, ...]:
    """Every region of the label and every box of the model, by what became of it."""
    missed, wrong = set(matches.missed), set(matches.wrong)
    marks = []
    for index, region in enumerate(regions):
        seen: MarkKind = "missed" if index in missed else "label"
        marks.append(Mark(region.points, seen if index in matches.counted_regions else "ignored"))
    for index, corners in enumerate(boxes):
        made: MarkKind = "wrong" if index in wrong else "found"
        marks.append(Mark(corners, made if index in matches.counted_boxes else "ignored"))
    return tuple(marks)
