"""The few modules and functions that ONNX has and PyTorch lacks."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.graph.indexing import Numbers, step_slice


class HardSigmoid(nn.Module):
    """min(1, max(0, alpha * x + beta)); PyTorch's own fixes alpha at 1/6, PaddlePaddle uses 0.2.

    >>> HardSigmoid(0.2, 0.5)(torch.tensor([-3.0, 0.0, 1.0]))
    tensor([0.0000, 0.5000, 0.7000])
    """

    def __init__(self, alpha: float = 0.2, beta: float = 0.5) -> None:
        """Keep slope and offset."""
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        """Apply to each element; shape kept."""
        return torch.clamp(self.alpha * x + self.beta, 0.0, 1.0)

    def extra_repr(self) -> str:
        """Show slope and offset."""
        return f"alpha={self.alpha:g}, beta={self.beta:g}"


def recurrent_output(result: tuple[Tensor, object], directions: int) -> Tensor:
    """PyTorch's [T, N, D*H] as ONNX's Y [T, D, N, H]."""
    output = result[0]
    steps, batch, width = output.shape
    return output.reshape(steps, batch, directions, width // directions).permute(0, 2, 1, 3)


def recurrent_state(result: tuple[Tensor, Tensor | tuple[Tensor, Tensor]], index: int) -> Tensor:
    """The last hidden (0) or cell (1) state, [D, N, H] in both."""
    state = result[1]
    return state[index] if isinstance(state, tuple) else state


COMPUTED = -2
"""Among the numbers of a Reshape: the one that its target has there."""


def onnx_reshape(x: Tensor, target: Numbers, numbers: Sequence[int] = ()) -> Tensor:
    """Reshape where 0 keeps a dimension and -1 infers one; `numbers`, but for `COMPUTED`, take the target's place."""
    sizes = [int(size) for size in target]
    if numbers:
        sizes = [size if number == COMPUTED else number for size, number in zip(sizes, numbers, strict=True)]
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)])


def onnx_unsqueeze(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Insert dimensions of size 1 at these places of the result; negative ones count from its end."""
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def onnx_slice(
    x: Tensor, starts: Numbers, ends: Numbers, axes: Numbers | None = None, steps: Numbers | None = None
) -> Tensor:
    """Slice with ONNX's clamped bounds; steps may be negative."""
    for position, bounds in enumerate(zip(starts, ends, strict=True)):
        start, end = int(bounds[0]), int(bounds[1])
        axis = position if axes is None else int(axes[position])
        step = 1 if steps is None else int(steps[position])
        if step < 0:
            x = step_slice(x, axis, start, end, step)
            continue
        size = x.shape[axis]
        index = [slice(None)] * x.ndim
        index[axis] = slice(start, min(end, size), step)
        x = x[tuple(index)]
    return x


def onnx_expand(x: Tensor, target: Tensor) -> Tensor:
    """Broadcast in both directions, as ONNX's Expand does."""
    return x * torch.ones([int(size) for size in target], dtype=x.dtype, device=x.device)


def onnx_div(a: Tensor, b: Tensor | float) -> Tensor:
    """Divide; between whole numbers (sizes) without a remainder.

    >>> onnx_div(torch.tensor([7, -7]), torch.tensor([2])), onnx_div(torch.tensor([7.0]), 2.0)
    (tensor([ 3, -3]), tensor([3.5000]))
    """
    tensors = [value for value in (a, b) if isinstance(value, Tensor)]
    whole = len(tensors) == 2 and not any(value.is_floating_point() for value in tensors)
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


def onnx_gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """alpha * A B + beta * C, of matrices, transposed or not."""
    product = alpha * ((a.T if transA else a) @ (b.T if transB else b))
    return product if c is None else product + beta * c


def leaky(x: Tensor, slope: Tensor) -> Tensor:
    """x above zero, slope * x below; the slope has any shape that broadcasts."""
    return torch.where(x < 0, x * slope, x)


def shape_of(x: Tensor, start: int = 0, end: int | None = None) -> Tensor:
    """The shape, or a slice of it, as an int64 tensor."""
    return torch.tensor(x.shape[start:end], dtype=torch.int64, device=x.device)


def resize_by(x: Tensor, factors: list[float], mode: str, align_corners: bool | None) -> Tensor:
    """Resize height and width of [N, C, H, W] by fixed factors."""
    return F.interpolate(x, scale_factor=factors, mode=mode, align_corners=align_corners)


def resize_to(x: Tensor, sizes: Tensor, mode: str, align_corners: bool | None) -> Tensor:
    """Resize [N, C, H, W] to a height and width: the last two of `sizes`."""
    target = [int(size) for size in sizes][-2:]
    return F.interpolate(x, size=target, mode=mode, align_corners=align_corners)


def depth_to_space(x: Tensor, block: int, mode: str) -> Tensor:
    """[N, C * b * b, H, W] -> [N, C, H * b, W * b]; channels are (row, column, C) in mode DCR, (C, row, column) in CRD.

    >>> depth_to_space(torch.arange(4.0).reshape(1, 4, 1, 1), 2, "DCR").tolist()
    [[[[0.0, 1.0], [2.0, 3.0]]]]
    """
    if mode == "CRD":
        return F.pixel_shuffle(x, block)
    batch, channels, height, width = x.shape
    depth = channels // (block * block)
    blocks = x.reshape(batch, block, block, depth, height, width).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(batch, depth, height * block, width * block)


def pad_image(x: Tensor, pads: list[int], value: float = 0.0) -> Tensor:
    """Pad with PyTorch's order of sides (last dimension first)."""
    return F.pad(x, pads, value=value)
