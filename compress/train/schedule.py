"""Learning-rate schedules as pure functions of the step."""

import math


def cosine_with_warmup(step: int, total: int, warmup: int) -> float:
    """Factor on the learning rate: linear up over `warmup` steps, then half a cosine down to 0 at `total`.

    Args:
        step: 0 for the first update.
        total: number of updates in all.
        warmup: number of updates to warm up over; 0 for none.

    >>> [round(cosine_with_warmup(step, 10, 2), 3) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.038]
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
