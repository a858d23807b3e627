"""ONNX's operators that pick, place and repeat elements, as functions of tensors."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Numbers = Tensor | Sequence[int]


def gather(x: Tensor, index: Tensor, axis: int) -> Tensor:
    """Slices of one axis by index, negative ones from its end; the index's shape takes the axis's place.

    >>> gather(torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[0, -1]]), 1).tolist()
    [[[1, 3]], [[4, 6]]]
    """
    axis = axis % x.ndim
    places = index.to(x.device).long() % x.shape[axis]
    picked = x.index_select(axis, places.reshape(-1))
    return picked.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def gather_elements(x: Tensor, index: Tensor, axis: int) -> Tensor:
    """One element of an axis for each place of the index."""
    return torch.gather(x, axis, index.long() % x.shape[axis])


def gather_nd(x: Tensor, index: Tensor, batch_dims: int = 0) -> Tensor:
    """Elements or slices by index tuples [..., K] of the first K dimensions."""
    if batch_dims:
        lead = x.shape[:batch_dims]
        parts = zip(x.flatten(0, batch_dims - 1), index.flatten(0, batch_dims - 1), strict=True)
        made = torch.stack([gather_nd(one, places) for one, places in parts])
        return made.reshape(*lead, *made.shape[1:])
    return x[tuple(index.long().unbind(-1))]


def scatter_nd(x: Tensor, index: Tensor, updates: Tensor, reduction: str) -> Tensor:
    """A copy with updates at index tuples [..., K]; `add` adds them to what is there."""
    return x.index_put(tuple(index.long().unbind(-1)), updates, accumulate=reduction == "add")


def scatter_elements(x: Tensor, index: Tensor, updates: Tensor, axis: int) -> Tensor:
    """A copy with an update at one place of an axis for each place of the index."""
    return x.scatter(axis, index.long() % x.shape[axis], updates)


def step_slice(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    """A slice of one axis with ONNX's clamped bounds, also backwards.

    >>> step_slice(torch.arange(5), 0, -1, -100, -2).tolist()
    [4, 2, 0]
    """
    places = range(*slice(start, end, step).indices(x.shape[axis]))
    return x.index_select(axis, torch.tensor(list(places), dtype=torch.long, device=x.device))


def tile(x: Tensor, repeats: Numbers) -> Tensor:
    """Each dimension repeated."""
    return x.repeat([int(number) for number in repeats])


def full(shape: Numbers, value: float | bool, dtype: torch.dtype) -> Tensor:
    """A tensor of one value, on the shape's device."""
    device = shape.device if isinstance(shape, Tensor) else None
    return torch.full([int(size) for size in shape], value, dtype=dtype, device=device)


def number_range(start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    """Numbers from start up to the limit, in their own type."""
    return torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype, device=start.device)


def one_hot(index: Tensor, depth: Tensor, values: Tensor, axis: int) -> Tensor:
    """The second value where the index points, else the first."""
    count = int(depth.reshape(-1)[0])
    hot = F.one_hot(index.long() % count, count).movedim(-1, axis).bool()
    return torch.where(hot, values[1], values[0])


def flatten(x: Tensor, axis: int) -> Tensor:
    """[the dimensions before the axis, those from it on], each as one."""
    axis = axis % x.ndim if axis != x.ndim else axis
    rows = 1
    for size in x.shape[:axis]:
        rows *= size
    return x.reshape(rows, -1)


def pad(x: Tensor, pads: Numbers, axes: Numbers | None, fill: Tensor | float, mode: str) -> Tensor:
    """Pad axes with ONNX's order of sides (all begins, then all ends); negative ones crop.

    Args:
        x: any tensor.
        pads: [begin of each axis, end of each axis].
        axes: which; default all.
        fill: of mode `constant`.
        mode: constant, reflect, edge or wrap.
    """
    sides = [int(side) for side in pads]
    which = list(range(x.ndim)) if axes is None else [int(axis) % x.ndim for axis in axes]
    for axis, begin, end in zip(which, sides[: len(which)], sides[len(which) :], strict=True):
        if begin or end:
            x = _pad_axis(x, axis, begin, end, fill, mode)
    return x


def _pad_axis(x: Tensor, axis: int, begin: int, end: int, fill: Tensor | float, mode: str) -> Tensor:
    size = x.shape[axis]
    if mode == "constant":
        number = float(fill.reshape(-1)[0]) if isinstance(fill, Tensor) else fill
        behind = x.ndim - 1 - axis
        return F.pad(x, [0, 0] * behind + [begin, end], value=number)
    place = torch.arange(-begin, size + end, device=x.device)
    if mode == "edge":
        place = place.clamp(0, size - 1)
    elif mode == "wrap":
        place = place % size
    elif size > 1:
        place = (size - 1) - ((place % (2 * size - 2)) - (size - 1)).abs()
    else:
        place = torch.zeros_like(place)
    return x.index_select(axis, place)


def same_sides(size: int, kernel: int, stride: int, dilation: int, upper: bool) -> tuple[int, int]:
    """Padding of one axis so that the output has ceil(size / stride) elements; the odd one behind, or (lower) before.

    >>> same_sides(7, 3, 2, 1, True), same_sides(8, 3, 2, 1, True), same_sides(8, 2, 1, 1, False)
    ((1, 1), (0, 1), (1, 0))
    """
    total = max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
    small, large = total // 2, total - total // 2
    return (small, large) if upper else (large, small)


def pad_same(
    x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], upper: bool, fill: float = 0.0
) -> Tensor:
    """Pad the last dimensions as TensorFlow's SAME does, which depends on their sizes."""
    sides: list[int] = []
    for size, *window in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        sides = [*same_sides(size, window[0], window[1], window[2], upper), *sides]
    return F.pad(x, sides, value=fill)


def pad_reached(
    x: Tensor, pads: Sequence[int], kernel: Sequence[int], strides: Sequence[int], fill: float = 0.0
) -> Tensor:
    """Pad the last two dimensions unevenly before pooling with `ceil_mode`, as far as windows reach.

    A window that would start in the padding behind does not count in ONNX. PyTorch, which takes this padding for
    image, would count it.

    Args:
        x: images [N, C, H, W].
        pads: ONNX's four, top, left, bottom, right.
        kernel: height and width of the window, dilated.
        strides: down and right.
        fill: what is padded with.
    """
    sides: list[int] = []
    for axis in range(2):
        size, begin, end = x.shape[2 + axis], pads[axis], pads[2 + axis]
        steps = -(-(size + begin + end - kernel[axis]) // strides[axis])
        if steps * strides[axis] >= size + begin:
            steps -= 1
        needed = steps * strides[axis] + kernel[axis] - size - begin
        sides = [begin, max(0, min(end, needed)), *sides]
    return F.pad(x, sides, value=fill)


def average_valid(
    x: Tensor, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int] | None, upper: bool
) -> Tensor:
    """Average pooling of [N, C, H, W] in which padding does not count, also where it is uneven.

    Args:
        x: images.
        kernel: height and width.
        strides: down and right.
        pads: ONNX's four, top, left, bottom, right; None for SAME.
        upper: of SAME: the odd pixel behind.
    """
    ones = torch.ones_like(x[:1, :1])
    if pads is None:
        padded = [pad_same(each, kernel, strides, (1, 1), upper) for each in (x, ones)]
    else:
        padded = [F.pad(each, [pads[1], pads[3], pads[0], pads[2]]) for each in (x, ones)]
    total, share = (F.avg_pool2d(each, list(kernel), list(strides)) for each in padded)
    return total / share
