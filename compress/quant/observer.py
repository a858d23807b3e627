"""What a tensor's values look like on calibration images, and the range that suits them."""

from math import inf

import numpy as np
import torch
from torch import Tensor

from compress.errors import ModelError
from compress.quant.functional import MIN_ALPHA

UNKNOWN_ALPHA = 1.0
"""Threshold of a tensor that was never above zero; any would do, and this one leaves room to learn."""

LARGEST = 1e34
"""Magnitude that float32 can no longer count in bins of."""


class Observer:
    """Collects a histogram of |x|, or of x above a fixed lower end, to choose a range from.

    The histogram's top doubles whenever a larger value comes, merging pairs of bins, so memory stays constant.
    Zeros, of which there are many behind a ReLU, are counted apart: every range holds zero exactly.

    Args:
        lower: of the range, as `PACT` has it: None where it is not known.
        two_sided: of an unknown lower end, choose it, too; else the range is the symmetric one.
        within: what the tensor's readers can tell apart (see `compress.quant.saturation.readable_range`): values beyond
            count as its ends. Looked at where the range is two-sided.
    """

    BINS = 2048
    TRIED = 512
    """Thresholds that are compared, evenly spaced up to the largest value."""
    COUNTED = 1 << 20
    """Values that are counted at once, so that they stay in the processor's cache."""

    def __init__(self, lower: float | None, two_sided: bool = False, within: tuple[float, float] = (-inf, inf)) -> None:
        """Start empty."""
        self.lower = lower
        self.two_sided, self.within = two_sided and lower is None, within
        self.least, self.most = 0.0, 0.0
        """Of the values and 0."""
        self.bottom = 0.0 if lower is None else lower
        """Value at the lower end of the histogram."""
        self.top = 0.0
        """Width of the histogram."""
        self.zeros = 0
        self.counts = torch.zeros(self.BINS, dtype=torch.float64)
        self.negative = torch.zeros(self.BINS, dtype=torch.float64)
        """Those of `counts` that are below zero, if the range is two-sided."""

    def record(self, x: Tensor) -> None:
        """Add a tensor's values.

        Raises:
            ModelError: there is NaN, infinity or a magnitude above 1e34 among them.
        """
        x = x.detach().float().cpu()
        if x.numel() == 0:
            return
        low, high = torch.aminmax(x)
        if not (low >= -LARGEST and high <= LARGEST):  # nor NaN
            raise ModelError("model: computes NaN or infinity on calibration images. Check its weights.")
        if self.two_sided:
            if self.within != (-inf, inf):
                x, low, high = (each.clamp(*self.within) for each in (x, low, high))
            self.least, self.most = min(self.least, float(low)), max(self.most, float(high))
        zeros = int(np.count_nonzero((x == 0).numpy()))  # four times as fast as PyTorch's own sum of bools
        self.zeros += zeros
        if zeros == x.numel():
            return
        largest = max(0.0, float(max(-low, high) if self.lower is None else high - self.lower))
        self.top = self.top or largest
        if self.top == 0.0:
            self.counts[0] += x.numel() - zeros
            return
        while largest > self.top:
            self.counts, self.negative = self._halved(self.counts), self._halved(self.negative)
            self.top *= 2
        for part in x.flatten().split(self.COUNTED):
            self.counts += self._histogram(part)
            if self.two_sided:
                self.negative += self._histogram(part[part < 0])
        if zeros:
            self.counts -= zeros * self._histogram(torch.zeros(1))

    def _halved(self, counts: Tensor) -> Tensor:
        """The same counts in bins twice as wide."""
        return torch.cat([counts.reshape(-1, 2).sum(1), counts.new_zeros(self.BINS // 2)])

    def _histogram(self, values: Tensor) -> Tensor:
        """How many values [N] lie in each bin: [BINS] float64, as `torch.histc` has it, in a tenth of its time."""
        shifted = values.abs() if self.lower is None else (values - self.lower).clamp_min_(0.0)
        places = shifted.mul_(self.BINS).div_(self.top).int()
        counts = torch.bincount(places, minlength=self.BINS + 1)
        counts[self.BINS - 1] += counts[self.BINS]  # the top itself belongs to the last bin
        return counts[: self.BINS].double()

    def best_range(self, percentile: float | None = None) -> tuple[float | None, float]:
        """The lower end, None for that of the symmetric range, and alpha (see `best_alpha`).

        A two-sided range is that of alpha, cut to the values that there are.
        """
        alpha = self.best_alpha(percentile)
        if not self.two_sided:
            return self.lower, alpha
        if self.top == 0.0:  # nothing was seen: room on both sides
            return max(-alpha, self.within[0]), alpha
        return max(-alpha, self.least), max(MIN_ALPHA, min(alpha, self.most))

    def best_alpha(self, percentile: float | None = None) -> float:
        """The threshold with the least squared error of clipping and rounding, or a percentile.

        Args:
            percentile: of |x| (or x) in (0, 100]; 100 is the maximum. None takes the least squared error.
        """
        largest = self.bottom + self.top
        if largest <= 0.0:
            return UNKNOWN_ALPHA
        if percentile is not None:
            return max(MIN_ALPHA, self._percentile(percentile))
        alphas = torch.arange(1, self.TRIED + 1, dtype=torch.float64) * (largest / self.TRIED)
        return max(MIN_ALPHA, float(alphas[self._squared_errors(alphas).argmin()]))

    def _percentile(self, percentile: float) -> float:
        width = self.top / self.BINS
        counts = self.counts.clone()
        counts[min(int(-self.bottom / width), self.BINS - 1)] += self.zeros
        share = counts.cumsum(0) / counts.sum()
        index = int(torch.searchsorted(share, min(percentile / 100.0, 1.0) - 1e-12))
        return self.bottom + width * (min(index, self.BINS - 1) + 1)

    def _squared_errors(self, alphas: Tensor) -> Tensor:
        """Summed squared error of rounding everything with each threshold: [A] -> [A]."""
        ends = alphas[:, None]
        if self.two_sided:
            below, above = ends.clamp_max(-self.least), ends.clamp_max(self.most)
            steps = ((below + above) / 255).clamp_min(MIN_ALPHA / 255)
            negative = self._errors(below, steps) @ self.negative
            return negative + self._errors(above, steps) @ (self.counts - self.negative)
        steps = ends / 127 if self.lower is None else (ends - self.lower) / 255
        return self._errors(ends, steps) @ self.counts

    def _errors(self, ends: Tensor, steps: Tensor) -> Tensor:
        """Squared error of a value of each bin, rounded in steps [A, 1] and clipped at ends [A, 1]: [A, BINS]."""
        width = self.top / self.BINS
        centres = self.bottom + (torch.arange(self.BINS, dtype=torch.float64) + 0.5) * width
        rounded = torch.div(centres, steps).round_().mul_(steps)  # in place: [A, BINS] is large
        errors = torch.sub(centres, torch.minimum(rounded, ends, out=rounded), out=rounded).square_()
        # Where a bin is wider than a step, its centre says nothing of its values: their errors are spread evenly.
        return torch.where((steps < width) & (centres < ends), steps.square() / 12, errors)
