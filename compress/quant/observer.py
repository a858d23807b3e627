"""What a tensor's values look like on calibration images, and the threshold that suits them."""

import math

import torch
from torch import Tensor

from compress.errors import ModelError
from compress.quant.functional import MIN_ALPHA

UNKNOWN_ALPHA = 1.0
"""Threshold of a tensor that was never above zero; any would do, and this one leaves room to learn."""


class Observer:
    """Collects a histogram of |x|, or of x above a fixed lower end, to choose alpha from.

    The histogram's top doubles whenever a larger value comes, merging pairs of bins, so memory stays constant.

    Args:
        lower: of the range, as `PACT` has it: None for the symmetric one.
    """

    BINS = 2048

    def __init__(self, lower: float | None) -> None:
        """Start empty."""
        self.lower = lower
        self.zero = 0.0 if lower is None else -lower
        """Where x = 0 lies in the histogram."""
        self.levels = 127 if lower is None else 255
        self.top = 0.0
        self.zeros = 0
        self.counts = torch.zeros(self.BINS, dtype=torch.float64)

    def record(self, x: Tensor) -> None:
        """Add a tensor's values.

        Raises:
            ModelError: there is NaN or infinity among them.
        """
        x = x.detach().float().cpu()
        values = x.abs() if self.lower is None else (x - self.lower).clamp_min_(0.0)
        largest = float(values.max())
        if not math.isfinite(largest):
            raise ModelError("model: computes NaN or infinity on calibration images. Check its weights.")
        self.zeros += int((values == self.zero).sum())
        self.top = self.top or largest
        if self.top == 0.0:
            self.counts[0] += values.numel()
            return
        while largest > self.top:
            self.counts = torch.cat([self.counts.reshape(-1, 2).sum(1), self.counts.new_zeros(self.BINS // 2)])
            self.top *= 2
        self.counts += torch.histc(values, self.BINS, 0.0, self.top)

    def best_alpha(self, percentile: float | None = None) -> float:
        """The threshold with the least mean squared error of clipping and rounding, or a percentile.

        Args:
            percentile: of |x| (or x) in (0, 100]; 100 is the maximum. None minimises the squared error.

        The rounding error of a value inside the range is taken as uniform, step**2 / 12; that of zero, which every
        range holds exactly, is none.
        """
        if self.top <= self.zero:
            return UNKNOWN_ALPHA
        width = self.top / self.BINS
        if percentile is not None:
            share = torch.cumsum(self.counts, 0) / self.counts.sum()
            index = int(torch.searchsorted(share, min(percentile / 100.0, 1.0) - 1e-12))
            return max(MIN_ALPHA, width * (min(index, self.BINS - 1) + 1) - self.zero)
        ends = torch.arange(1, self.BINS + 1, dtype=torch.float64) * width
        errors = self._clipping_errors(ends) + self._rounding_errors(ends)
        errors[ends <= self.zero] = math.inf
        return max(MIN_ALPHA, float(ends[errors.argmin()]) - self.zero)

    def _clipping_errors(self, ends: Tensor) -> Tensor:
        """Sum of squared distances to each end of the values beyond it: [BINS]."""
        centres = ends - 0.5 * ends[0]
        # Sums of 1, x and x**2 over the bins beyond each end.
        beyond = [total.sum() - total.cumsum(0) for total in (self.counts * centres**power for power in range(3))]
        return (beyond[2] - 2 * ends * beyond[1] + ends**2 * beyond[0]).clamp_min(0.0)

    def _rounding_errors(self, ends: Tensor) -> Tensor:
        """Sum of squared rounding errors of the values inside each range: [BINS]."""
        inside = (self.counts.cumsum(0) - self.zeros).clamp_min(0.0)
        return inside * (ends / self.levels) ** 2 / 12
