"""PACT as a module: one learned threshold per quantised tensor, which *is* the tensor's int8 range.

PaddleSlim clips with PACT in front of a moving-average observer and drops alpha when it exports; here alpha is the
activation range of the exported file (scale = alpha/127, symmetric), so that what was trained is what runs.
"""

import torch
from torch import Tensor, nn

from compress.quant import functional

HARD_SWISH_MINIMUM = -0.375
"""Least value of x * clip(x + 3, 0, 6) / 6, taken at x = -1.5."""


class PACT(nn.Module):
    """Clip at a learned alpha, then round to uint8.

    Args:
        lower: lower end of the range: None for the symmetric [-alpha, alpha], 0 after ReLU,
            `HARD_SWISH_MINIMUM` for the asymmetric range of hard-swish.
        alpha: starting threshold, before calibration.
        learned: False keeps alpha fixed at its calibrated (or given) value: plain QAT, or a range known exactly,
            such as the [0, 1] of a hard-sigmoid.

    Source: PP-OCR (arXiv 2009.09941) for the clip; L2 on alpha and its learning rate are `compress.quant.prepare`'s.
    """

    alpha: Tensor

    def __init__(
        self, lower: float | None = None, alpha: float = 6.0, learned: bool = True, fixed: bool = False
    ) -> None:
        """Start with the given threshold, quantisation on and observation off."""
        super().__init__()
        self.lower = lower
        self.fixed = fixed
        value = torch.tensor(float(alpha))
        if learned and not fixed:
            self.alpha = nn.Parameter(value)
        else:
            self.register_buffer("alpha", value)
        self.enabled = True
        self.observer: Observer | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Clip and round; shape kept. While observing, record x and pass it on unchanged."""
        if self.observer is not None:
            self.observer.record(x)
        if not self.enabled:
            return x
        return functional.pact_quantize(x, self.alpha.clamp_min(functional.MIN_ALPHA), self.lower)

    def scale_and_zero_point(self) -> tuple[Tensor, Tensor]:
        """The tensor's quantisation parameters as the exported file will hold them."""
        return functional.activation_scale(self.alpha, self.lower)

    def extra_repr(self) -> str:
        """Show the range."""
        low = "-alpha" if self.lower is None else f"{self.lower:g}"
        return f"range=[{low}, {float(self.alpha):.4g}], learned={isinstance(self.alpha, nn.Parameter)}"


class Observer:
    """Collects a histogram of |x| (or of x above a fixed lower end) to choose alpha from.

    The histogram's top doubles whenever a larger value comes, merging pairs of bins, so memory stays constant.
    """

    BINS = 2048

    def __init__(self, symmetric: bool) -> None:
        """Start empty."""
        self.symmetric = symmetric
        self.top = 0.0
        self.counts = torch.zeros(self.BINS)

    def record(self, x: Tensor) -> None:
        """Add a tensor's values."""
        values = x.detach().abs() if self.symmetric else x.detach().clamp_min(0)
        largest = float(values.max())
        if largest <= 0:
            self.counts[0] += values.numel()
            return
        if self.top == 0.0:
            self.top = largest
        while largest > self.top:
            self.counts = torch.cat([self.counts.reshape(-1, 2).sum(1), torch.zeros(self.BINS // 2)])
            self.top *= 2
        self.counts += torch.histc(values.float().cpu(), self.BINS, 0.0, self.top)

    def best_alpha(self, levels: int, percentile: float | None = None) -> float:
        """The threshold with the least mean squared error of clipping and rounding, or a percentile.

        Args:
            levels: number of steps between 0 and alpha (127 symmetric, 255 one-sided).
            percentile: in (0, 100]; 100 is the maximum. None minimises the squared error.

        The rounding error of a value inside the range is taken as uniform, step**2 / 12.
        """
        if self.top == 0.0:
            return functional.MIN_ALPHA
        width = self.top / self.BINS
        if percentile is not None:
            share = torch.cumsum(self.counts, 0) / self.counts.sum()
            return width * (int(torch.searchsorted(share, torch.tensor(min(percentile / 100.0, 1.0) - 1e-9))) + 1)
        centres = (torch.arange(self.BINS) + 0.5) * width
        best, best_error = self.top, float("inf")
        for index in range(self.BINS // 64, self.BINS + 1, self.BINS // 128):
            alpha = width * index
            clipped = (self.counts[index:] * (centres[index:] - alpha) ** 2).sum()
            rounded = self.counts[:index].sum() * (alpha / levels) ** 2 / 12
            error = float(clipped + rounded)
            if error < best_error:
                best, best_error = alpha, error
        return best
