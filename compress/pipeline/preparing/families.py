"""Defaults of each kind of task, for recipes that are written for the user."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Family:
    """Defaults for one kind of task."""

    macs: float
    """Share of the multiply-adds that is left."""
    seen: int
    """Images that fine-tuning sees in all, each epoch counted: what decides the epochs of a folder."""
    most_held_back: int
    """Images that measure agreement, at most: all of them are scored after every epoch."""
    batch_size: int
    scan: Mapping[str, Any]
    prune: Mapping[str, Any]
    finetune: Mapping[str, Any]
    quantize: Mapping[str, Any]
    labelled: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `finetune` that differ where data have labels."""
    seen_labelled: int | None = None
    """Instead of `seen`, where data have labels, from which more is to be learned."""
    rendered: int = 0
    """Crops with other text that are drawn and learned from, as many in an epoch as images of the folder."""
    spliced: int = 0
    """The same of crops that are put together of pieces of the folder's."""


RATIOS = [0.25, 0.5, 0.75]
HELD_BACK = 0.2
EPOCHS = (2, 60)
"""The fewest and the most epochs of fine-tuning, whatever the folder."""
DETECTION_SIDE = 960
"""Longest side of scored scenes: PaddleOCR's own default in deployment."""
SCAN_SIDE = 640
CROP = 320
FAMILIES = {
    "classification": Family(
        macs=0.65,
        seen=16000,
        most_held_back=400,
        batch_size=32,
        scan={"criterion": "obs", "measure": "agreement", "images": 256},
        prune={"allocation": "spare"},
        finetune={
            "lr": 1.0e-3,
            "warmup_epochs": 1,
            "weight_decay": 1.0e-5,
            "freeze_bn": True,
            "distill": 1.0,
            "features": 3.0,
            "average": 50,
        },
        quantize={"lr": 2.0e-4, "pact": {"l2": 0.001}},
    ),
    "recognition": Family(
        macs=0.75,
        seen=8000,
        most_held_back=400,
        batch_size=8,
        scan={"criterion": "obs", "measure": "agreement", "images": 256},
        prune={"allocation": "spare"},
        finetune={
            "lr": 1.5e-3,
            "warmup_epochs": 0.5,
            "weight_decay": 1.0e-5,
            "freeze_bn": True,
            "distill": 1.0,
            "features": 80.0,
            "average": 50,
        },
        rendered=1500,
        spliced=1500,
        quantize={"lr": 2.0e-4, "weight_decay": 1.0e-5, "pact": {"l2": 0.001}},
    ),
    "detection": Family(
        macs=0.6,
        seen=1400,
        seen_labelled=2400,
        most_held_back=24,
        batch_size=8,
        scan={"criterion": "obs", "images": 12},
        prune={},
        finetune={
            "lr": 1.0e-3,
            "warmup_epochs": 1,
            "freeze_bn": True,
            "distill": 2.0,
            "features": 5.0,
            "average": 30,
        },
        labelled={"lr": 4.0e-3},
        quantize={"lr": 2.0e-4, "calibration": 80, "distill": 2.0, "average": 30, "pact": {"l2": 0.0001}},
    ),
}
"""Measured on PP-OCR's models: docs/recovery.md."""


def held_back_share(images: int, most: int) -> float:
    """A fifth, or less where that were more than `most` images.

    >>> held_back_share(100, 400), held_back_share(10000, 400)
    (0.2, 0.04)
    """
    return min(HELD_BACK, max(1e-6, round(most / images, 6)))


def default_epochs(train: int, family: Family, *, labelled: bool = False) -> int:
    """As many as show the network about as many images as its family needs, within `EPOCHS`.

    >>> [default_epochs(train, FAMILIES["recognition"]) for train in (400, 20, 50_000)]
    [20, 60, 2]
    """
    seen = family.seen_labelled if labelled and family.seen_labelled else family.seen
    return min(EPOCHS[1], max(EPOCHS[0], round(seen / max(1, train))))
