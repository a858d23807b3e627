"""Choose each range's starting value and correct biases, by what the float model computes on calibration images."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from compress.compute.device import device_of
from compress.errors import DataError
from compress.quant.int8_layers import QuantLayer, correct_bias, record_shift
from compress.quant.observer import Observer
from compress.quant.prepare import pacts


@dataclass(frozen=True)
class Observed:
    """What the tensors of a module were on calibration images, for any choice of their ranges."""

    images: int
    observers: Mapping[str, Observer]
    """Name of a quantiser -> what was seen; not of those whose range is fixed."""

    def set_ranges(self, module: nn.Module, percentile: float | None = None) -> None:
        """Set every range of a prepared module to that of its observer (see `Observer.best_range`)."""
        for name, pact in pacts(module):
            if name in self.observers:
                pact.set_range(*self.observers[name].best_range(percentile))


def calibrate(
    module: nn.Module,
    batches: Iterable[np.ndarray],
    *,
    percentile: float | None = None,
    on_progress: Callable[[int, int, str], None] | None = None,
    total: int = 0,
) -> Observed:
    """Set every range of a prepared module, and take out of its biases what rounding the weights adds on average.

    Nothing is rounded meanwhile: ranges and means are the float model's.

    Args:
        module: from `prepare_qat`; its ranges and biases are changed.
        batches: images float32 [N, 3, H, W]; moved to the device where the module is.
        percentile: of |x|, in (0, 100]; None takes the alpha of least squared error.
        on_progress: called as (images done, total, message).
        total: number of images expected, for progress.

    Returns:
        What was seen, from which other ranges can be set without the images.

    Raises:
        DataError: there were none, or a batch is no float32 array.
        ValueError: there is no such percentile.
        ModelError: the network computes NaN or infinity on them.
    """
    if percentile is not None and not 0.0 < percentile <= 100.0:
        raise ValueError(f"percentile: got {percentile:g}. Must be above 0 and at most 100, or None.")
    found = list(pacts(module))
    for _, pact in found:
        pact.observe()
    layers = [layer for layer in module.modules() if isinstance(layer, QuantLayer)]
    for layer in layers:
        record_shift(layer)
    count = 0
    was_training, device = module.training, device_of(module)
    module.eval()
    try:
        with torch.no_grad():
            for images in batches:
                _check_batch(images)
                module(torch.from_numpy(images).to(device))
                count += len(images)
                if on_progress:
                    on_progress(count, max(total, count), "calibrating")
        if count == 0:
            raise DataError("no calibration images. Name training data that can be read.")
        seen = {name: pact.observer for name, pact in found if pact.observer is not None and not pact.fixed}
        observed = Observed(count, seen)
        observed.set_ranges(module, percentile)
        for layer in layers:
            correct_bias(layer)
    finally:
        for layer in layers:
            layer.shift = None
        for _, pact in found:
            pact.enabled, pact.observer = True, None
        module.train(was_training)
    return observed


def _check_batch(images: object) -> None:
    """
    Raises:
        DataError: a batch is no float32 array.
    """
    if isinstance(images, np.ndarray) and images.dtype == np.float32:
        return
    kind = f"an array of {images.dtype}" if isinstance(images, np.ndarray) else f"a {type(images).__name__}"
    advice = "images.numpy()" if isinstance(images, torch.Tensor) else "images.astype(np.float32)"
    raise DataError(f"calibrate: got {kind} as a batch. Must be a float32 array [N, C, H, W]. Use {advice}.")
