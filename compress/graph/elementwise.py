"""Element-wise operators, comparisons and reductions of ONNX, by name."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SELU = (1.67326319217681884765625, 1.05070102214813232421875)
"""ONNX's alpha and gamma."""
Axes = Sequence[int] | None


class Selu(nn.Module):
    """gamma * x above zero, gamma * alpha * (exp(x) - 1) below; PyTorch's own fixes both.

    Source: Klambauer et al. 2017 (arXiv 1706.02515).
    """

    def __init__(self, alpha: float, gamma: float) -> None:
        """Keep both factors."""
        super().__init__()
        self.alpha, self.gamma = alpha, gamma

    def forward(self, x: Tensor) -> Tensor:
        """Apply to each element; shape kept."""
        return self.gamma * F.elu(x, self.alpha)


def shrink(x: Tensor, bias: float, threshold: float) -> Tensor:
    """Nearer to zero by `bias`, and zero within the threshold.

    >>> shrink(torch.tensor([-2.0, 0.3, 2.0]), 0.5, 1.0).tolist()
    [-1.5, 0.0, 1.5]
    """
    return (x + bias) * (x < -threshold) + (x - bias) * (x > threshold)


def mean_of(*tensors: Tensor) -> Tensor:
    """The mean of tensors, element by element."""
    return sum(tensors[1:], tensors[0]) / len(tensors)


def size_of(x: Tensor) -> Tensor:
    """The number of elements, as an int64 number."""
    return torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


def space_to_depth(x: Tensor, block: int) -> Tensor:
    """[N, C, H * b, W * b] -> [N, b * b * C, H, W]; channels are (row, column, C).

    >>> space_to_depth(torch.arange(4.0).reshape(1, 1, 2, 2), 2).flatten().tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    batch, channels, height, width = x.shape
    blocks = x.reshape(batch, channels, height // block, block, width // block, block).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(batch, block * block * channels, height // block, width // block)


def _all(dim: Axes, x: Tensor) -> list[int]:
    return list(range(x.ndim)) if dim is None else list(dim)


def reduce_max(x: Tensor, dim: Axes = None, keepdim: bool = True) -> Tensor:
    """Largest values."""
    return torch.amax(x, _all(dim, x), keepdim)


def reduce_min(x: Tensor, dim: Axes = None, keepdim: bool = True) -> Tensor:
    """Smallest values."""
    return torch.amin(x, _all(dim, x), keepdim)


def reduce_sum(x: Tensor, dim: Axes = None, keepdim: bool = True) -> Tensor:
    """Sums, in the type of what is summed."""
    return torch.sum(x, _all(dim, x), keepdim, dtype=x.dtype)


def reduce_prod(x: Tensor, dim: Axes = None, keepdim: bool = True) -> Tensor:
    """Products, in the type of what is multiplied."""
    for axis in sorted((axis % x.ndim for axis in _all(dim, x)), reverse=True):
        x = torch.prod(x, axis, keepdim, dtype=x.dtype)
    return x


def reduce_l1(x: Tensor, dim: Axes = None, keepdim: bool = True) -> Tensor:
    """Sums of absolute values."""
    return reduce_sum(x.abs(), dim, keepdim)


def reduce_l2(x: Tensor, dim: Axes = None, keepdim: bool = True) -> Tensor:
    """Roots of sums of squares."""
    return reduce_sum(x * x, dim, keepdim).sqrt()


def reduce_sum_square(x: Tensor, dim: Axes = None, keepdim: bool = True) -> Tensor:
    """Sums of squares."""
    return reduce_sum(x * x, dim, keepdim)


def reduce_log_sum(x: Tensor, dim: Axes = None, keepdim: bool = True) -> Tensor:
    """Logarithms of sums."""
    return reduce_sum(x, dim, keepdim).log()


def reduce_log_sum_exp(x: Tensor, dim: Axes = None, keepdim: bool = True) -> Tensor:
    """Logarithms of sums of exponentials."""
    return torch.logsumexp(x, _all(dim, x), keepdim)


UNARY: dict[str, Callable[[Any], Any]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Asin": torch.asin,
    "Atan": torch.atan,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Floor": torch.floor,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": F.mish,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softsign": F.softsign,
    "Tan": torch.tan,
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "And": torch.logical_and,
    "Equal": operator.eq,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}
REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "ReduceL1": reduce_l1,
    "ReduceL2": reduce_l2,
    "ReduceLogSum": reduce_log_sum,
    "ReduceLogSumExp": reduce_log_sum_exp,
    "ReduceMax": reduce_max,
    "ReduceMin": reduce_min,
    "ReduceProd": reduce_prod,
    "ReduceSum": reduce_sum,
    "ReduceSumSquare": reduce_sum_square,
}
