"""PACT as a module: one learned threshold per quantised tensor, which *is* the tensor's int8 range.

PaddleSlim clips with PACT in front of a moving-average observer and drops alpha when it exports; here alpha is the
activation range of the exported file (scale = alpha/127 where it is symmetric), so that what was trained is what runs.
"""

from math import inf

import torch
from torch import Tensor, nn

from compress.quant import functional
from compress.quant.observer import Observer

HARD_SWISH_MINIMUM = -0.375
"""Least value of x * clip(x + 3, 0, 6) / 6, taken at x = -1.5."""


class PACT(nn.Module):
    """Clip at a learned alpha, then round to uint8.

    Args:
        lower: lower end of the range: None for the symmetric [-alpha, alpha], 0 after ReLU,
            `HARD_SWISH_MINIMUM` for the asymmetric range of hard-swish.
        alpha: starting threshold, before calibration.
        two_sided: of an unknown lower end (`lower` None), take what calibration finds; else the symmetric range.
        within: what the tensor's readers can tell apart (see `compress.quant.saturation.readable_range`).
        learned: False keeps alpha fixed at its calibrated (or given) value: plain QAT, or a range known exactly,
            such as the [0, 1] of a hard-sigmoid.

    Source: PP-OCR (arXiv 2009.09941) for the clip; L2 on alpha and its learning rate are `compress.quant.prepare`'s.
    """

    alpha: Tensor

    def __init__(
        self,
        lower: float | None = None,
        alpha: float = 6.0,
        learned: bool = True,
        fixed: bool = False,
        two_sided: bool = False,
        within: tuple[float, float] = (-inf, inf),
    ) -> None:
        """Start with the given threshold, quantisation on and observation off."""
        super().__init__()
        self.lower = lower
        self.fixed = fixed
        self.two_sided, self.within = two_sided and lower is None, within
        value = torch.tensor(float(alpha))
        if learned and not fixed:
            self.alpha = nn.Parameter(value)
        else:
            self.register_buffer("alpha", value)
        self.enabled = True
        self.observer: Observer | None = None

    def observe(self) -> None:
        """Pass values on unchanged from now on, and record them."""
        self.enabled = False
        self.observer = Observer(None if self.two_sided else self.lower, self.two_sided, self.within)

    def set_range(self, lower: float | None, alpha: float | Tensor) -> None:
        """Take a range that calibration found."""
        self.lower = lower
        self.alpha.data.fill_(alpha)

    def forward(self, x: Tensor) -> Tensor:
        """Clip and round; shape kept. While observing, record x and pass it on unchanged."""
        if self.observer is not None:
            self.observer.record(x)
        if not self.enabled:
            return x
        return functional.pact_quantize(x, self.alpha, self.lower)

    def scale_and_zero_point(self) -> tuple[Tensor, Tensor]:
        """The tensor's quantisation parameters as the exported file will hold them."""
        return functional.activation_scale(self.alpha, self.lower)

    def extra_repr(self) -> str:
        """Show the range."""
        low = "-alpha" if self.lower is None else f"{self.lower:g}"
        return f"range=[{low}, {float(self.alpha.detach()):.4g}], learned={isinstance(self.alpha, nn.Parameter)}"
