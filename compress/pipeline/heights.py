"""Which height a recogniser was trained at, where its file leaves that open: the one at which it is surest.

Measured on 64 images each of words, street words and lines of receipts, the mean probability of what is read:
PP-OCRv2's Chinese file (trained at 32) .91, .78, .82 at 32 and .55, .45, .53 at 48; PP-OCRv3's English file (48)
.84, .60, .82 at 32 and .98, .87, .93 at 48. Images of a script that a model does not read tell nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compress.data.images import read_image
from compress.data.processing import Processing
from compress.data.transforms import preprocess_crop
from compress.errors import ModelError
from compress.measure.session import Session
from compress.tasks.probabilities import as_probabilities

HEIGHTS = (32, 48)
"""Of CRNN and PP-OCRv2, and of PP-OCRv3 to v6. Other projects' files fix their height."""
IMAGES = 64
SURER = 0.02
"""By so much must a model be surer at another height than the usual one."""
MULTIPLE, WIDEST = 32, 20
"""Widths are multiples of the first, and at most so many heights."""


@dataclass(frozen=True)
class Found:
    """A height, and why."""

    height: int
    sure: Mapping[int, float]
    """Height that the model takes -> mean probability of what it reads."""
    images: int
    """That were read."""


def surest_height(
    session: Session,
    files: Sequence[Path],
    usual: tuple[int, int, int],
    heights: Sequence[int],
    processing: Processing,
    one_width: bool = False,
) -> Found:
    """The height at which a recogniser is surest of what it reads.

    Args:
        session: the model, which takes any height.
        files: images of text; some of them are read, spread evenly. Those count that it takes at every height.
        usual: (C, H, W); H stays unless the model is surer at another by `SURER`. Crops are padded to at least W.
        heights: to try beside it; those at which it takes no image are left out.
        processing: how it is fed and read.
        one_width: whether the model takes no other width than W.
    """
    chosen = [files[place] for place in np.linspace(0, len(files) - 1, min(IMAGES, len(files))).round().astype(int)]
    crops = [image for image in map(read_image, chosen) if image is not None]
    channels, own, least = usual
    tried = {}
    for height in dict.fromkeys((own, *heights)):
        widths = [least if one_width else max(least, _wide(crop, height)) for crop in crops]
        shapes = [(channels, height, width) for width in widths]
        each = [_confidence(session, crop, shape, processing) for crop, shape in zip(crops, shapes, strict=True)]
        if any(sure is not None for sure in each):
            tried[height] = each
    taken = [place for place in range(len(crops)) if all(each[place] is not None for each in tried.values())]
    sure = {height: float(np.mean([each[place] for place in taken])) for height, each in tried.items() if taken}
    best = max(sure, key=lambda height: sure[height], default=own)
    surer = own in sure and sure[best] > sure[own] + SURER
    return Found(best if surer else own, sure, len(taken))


def _wide(crop: np.ndarray, height: int) -> int:
    """Width of a crop that is brought to a height, ratio kept, as a multiple."""
    wide = math.ceil(height * crop.shape[1] / crop.shape[0] / MULTIPLE) * MULTIPLE
    return min(wide, WIDEST * height)


def _confidence(
    session: Session, crop: np.ndarray, shape: tuple[int, int, int], processing: Processing
) -> float | None:
    """Mean probability of the best class over the steps where that is no blank, 0 where none is; None where the model
    does not take such an image."""
    try:
        outputs = session.run(preprocess_crop(crop, shape, processing)[None])
    except ModelError:
        return None
    steps = as_probabilities(outputs, processing.outputs).reshape(-1, outputs.shape[-1])
    blank = {"first": 0, "last": steps.shape[-1] - 1}.get(str(processing.blank), processing.blank)
    best = steps.argmax(axis=-1)
    read = steps.max(axis=-1)[best != blank]
    return float(read.mean()) if len(read) else 0.0
