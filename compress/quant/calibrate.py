"""Choose each threshold's starting value and correct biases, by what the float model computes on calibration images."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn

from compress.compute.device import device_of
from compress.errors import DataError
from compress.quant.int8_layers import QuantLayer, correct_bias, record_shift
from compress.quant.observer import Observer
from compress.quant.prepare import pacts


def calibrate(
    module: nn.Module,
    batches: Iterable[np.ndarray],
    *,
    percentile: float | None = None,
    on_progress: Callable[[int, int, str], None] | None = None,
    total: int = 0,
) -> int:
    """Set every alpha of a prepared module, and take out of its biases what rounding the weights adds on average.

    Nothing is rounded meanwhile: ranges and means are the float model's.

    Args:
        module: from `prepare_qat`; its alphas and biases are changed.
        batches: images float32 [N, 3, H, W]; moved to the device where the module is.
        percentile: of |x|, in (0, 100]; None takes the alpha of least squared error.
        on_progress: called as (images done, total, message).
        total: number of images expected, for progress.

    Returns:
        Number of images seen.

    Raises:
        DataError: there were none.
        ModelError: the network computes NaN or infinity on them.
    """
    found = list(pacts(module))
    for _, pact in found:
        pact.enabled, pact.observer = False, Observer(pact.lower)
    layers = [layer for layer in module.modules() if isinstance(layer, QuantLayer)]
    for layer in layers:
        record_shift(layer)
    count = 0
    was_training, device = module.training, device_of(module)
    module.eval()
    try:
        with torch.no_grad():
            for images in batches:
                module(torch.from_numpy(images).to(device))
                count += len(images)
                if on_progress:
                    on_progress(count, max(total, count), "calibrating")
        if count == 0:
            raise DataError("no calibration images. Name training data that can be read.")
        for _, pact in found:
            assert pact.observer is not None
            if not pact.fixed:
                pact.alpha.data.fill_(pact.observer.best_alpha(percentile))
        for layer in layers:
            correct_bias(layer)
    finally:
        for layer in layers:
            layer.shift = None
        for _, pact in found:
            pact.enabled, pact.observer = True, None
        module.train(was_training)
    return count
