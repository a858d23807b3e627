"""Which height a recogniser was trained at, where its file leaves that open: the one at which it is surest.

Measured on 64 images each of words, street words and lines of receipts, the mean probability of what is read:
PP-OCRv2's Chinese file (trained at 32) .90, .76, .84 at 32 and .53, .40, .53 at 48; PP-OCRv3's English file (48)
.94, .73, .89 at 32 and .97, .85, .92 at 48: of 600 other words it reads .6567 at 32 and .8217 at 48. Images of a script
that a model does not read tell nothing.
"""

import math
from collections.abc import Sequence
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
SURER = 0.01
"""By so much must a model be surer at another height than the usual one."""
MULTIPLE, WIDEST = 32, 20
"""Widths are multiples of the first, and at most so many heights."""


def surest_height(
    session: Session,
    files: Sequence[Path],
    usual: tuple[int, int, int],
    heights: Sequence[int],
    processing: Processing,
) -> tuple[int, dict[int, float]]:
    """The height at which a recogniser is surest of what it reads, and how sure it is at each that it takes.

    Args:
        session: the model, which takes any height and width.
        files: images of text; some of them are read, spread evenly.
        usual: (C, H, W); H stays unless the model is surer at another by `SURER`.
        heights: to try beside it.
        processing: how it is fed and read.
    """
    chosen = [files[place] for place in np.linspace(0, len(files) - 1, min(IMAGES, len(files))).round().astype(int)]
    crops = [image for image in map(read_image, chosen) if image is not None]
    sure: dict[int, float] = {}
    for height in dict.fromkeys((usual[1], *heights)) if crops else ():
        try:
            each = [_confidence(session, crop, (usual[0], height), processing) for crop in crops]
        except ModelError:  # it does not take this height
            continue
        sure[height] = float(np.mean(each))
    best = max(sure, key=lambda height: sure[height], default=usual[1])
    return (best if sure.get(best, 0.0) > sure.get(usual[1], 0.0) + SURER else usual[1]), sure


def _confidence(session: Session, crop: np.ndarray, size: tuple[int, int], processing: Processing) -> float:
    """Mean probability of the best class over the steps where that is no blank; 0 where none is."""
    channels, height = size
    wide = math.ceil(height * crop.shape[1] / crop.shape[0] / MULTIPLE) * MULTIPLE
    shape = (channels, height, min(wide, WIDEST * height))
    outputs = session.run(preprocess_crop(crop, shape, processing)[None])
    steps = as_probabilities(outputs, processing.outputs).reshape(-1, outputs.shape[-1])
    blank = {"first": 0, "last": steps.shape[-1] - 1}.get(str(processing.blank), processing.blank)
    best = steps.argmax(axis=-1)
    read = steps.max(axis=-1)[best != blank]
    return float(read.mean()) if len(read) else 0.0
