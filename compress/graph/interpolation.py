"""Resize in all of ONNX's usual modes, where PyTorch's `interpolate` has no equal one.

A resized axis is a product with a matrix [out, in]: one 1 in each row for nearest, two weights for linear, four for
cubic. That is exact for every mode, whatever the sizes, and differentiable; `interpolate` is faster where it fits.

Source: ONNX's definition of Resize (opset 19), and its reference implementation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

COORDINATES = frozenset(("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"))
MODES = frozenset(("nearest", "linear", "cubic"))
TIE = 1e-6
"""So near the middle of two pixels onnxruntime takes a place for the middle (seen: at 9.5e-7; not at 1.9e-6)."""
POLICIES = frozenset(("stretch", "not_larger", "not_smaller"))


@dataclass(frozen=True)
class Resampling:
    """How a Resize computes values between pixels."""

    mode: str
    coordinates: str
    rounding: str = "round_prefer_floor"
    """Of nearest alone."""
    cubic_a: float = -0.75
    exclude_outside: bool = False
    policy: str = "stretch"


def resize(
    x: Tensor,
    axes: Sequence[int],
    sizes: Tensor | Sequence[int] | None,
    scales: Tensor | Sequence[float] | None,
    *settings: Any,
) -> Tensor:
    """Resize some axes, to sizes or by factors (one for each axis); the settings are those of `Resampling`."""
    how = Resampling(*settings)
    if sizes is not None:
        targets = _targets([x.shape[axis] for axis in axes], [int(size) for size in sizes], how.policy)
        factors = [out / x.shape[axis] for axis, out in zip(axes, [int(size) for size in sizes], strict=True)]
        if how.policy != "stretch":
            factors = [_common(factors, how.policy)] * len(factors)
    else:
        assert scales is not None
        factors = [float(scale) for scale in scales]
        targets = [enlarged(x.shape[axis], factor) for axis, factor in zip(axes, factors, strict=True)]
    for axis, out, factor in zip(axes, targets, factors, strict=True):
        if out != x.shape[axis] or factor != 1.0:
            matrix = interpolation_matrix(x.shape[axis], out, factor, how).to(x)
            x = torch.movedim(torch.movedim(x, axis, -1) @ matrix.T, -1, axis)
    return x


def enlarged(size: int, factor: float) -> int:
    """A size times a factor as onnxruntime multiplies, in float32.

    >>> enlarged(50, float(np.float32(1.3))), int(50 * float(np.float32(1.3)))
    (65, 64)
    """
    return int(np.float32(size) * np.float32(factor))


def interpolation_matrix(size: int, out: int, factor: float, how: Resampling) -> Tensor:
    """The matrix [out, in] that resizes one axis.

    >>> interpolation_matrix(2, 4, 2.0, Resampling("linear", "half_pixel")).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    >>> interpolation_matrix(2, 3, 1.5, Resampling("nearest", "asymmetric", "floor")).tolist()
    [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    """
    place = _coordinates(size, out, factor, how.coordinates)
    if how.mode == "nearest":
        return torch.nn.functional.one_hot(_rounded(place, how.rounding).clamp(0, size - 1), size).float()
    first = place.floor()
    share = place - first
    if how.mode == "linear":
        taps = {0: 1.0 - share, 1: share}
    else:
        taps = {step: _cubic((share - step).abs(), how.cubic_a) for step in (-1, 0, 1, 2)}
    matrix = torch.zeros(out, size)
    for step, weight in taps.items():
        column = first.long() + step
        inside = (column >= 0) & (column < size)
        kept = weight * inside if how.exclude_outside else weight
        matrix.scatter_add_(1, column.clamp(0, size - 1)[:, None], kept[:, None])
    return matrix / matrix.sum(1, keepdim=True) if how.exclude_outside else matrix


def _targets(given: Sequence[int], wanted: Sequence[int], policy: str) -> list[int]:
    """Sizes after resizing; one factor for all where the aspect ratio is kept.

    >>> _targets([10, 20], [5, 5], "not_larger"), _targets([10, 20], [5, 5], "not_smaller")
    ([3, 5], [5, 10])
    """
    if policy == "stretch":
        return list(wanted)
    factor = _common([out / size for size, out in zip(given, wanted, strict=True)], policy)
    return [int(size * factor + 0.5) for size in given]


def _common(factors: Sequence[float], policy: str) -> float:
    """The one factor for all axes where the aspect ratio is kept."""
    return min(factors) if policy == "not_larger" else max(factors)


def _coordinates(size: int, out: int, factor: float, kind: str) -> Tensor:
    """Where each result lies on the axis that is resized, [out]; in float32, as onnxruntime computes it."""
    place = torch.arange(out, dtype=torch.float32)
    if kind == "asymmetric":
        return place / factor
    if kind == "align_corners":
        return place * (size - 1) / (out - 1) if out > 1 else torch.zeros(1)
    if kind == "pytorch_half_pixel" and out == 1:
        return torch.zeros(1)
    centred = (place + 0.5) / factor - 0.5
    if kind == "half_pixel_symmetric":
        return size / 2 * (1 - out / (factor * size)) + centred
    return centred


def _rounded(place: Tensor, rounding: str) -> Tensor:
    if rounding == "floor":
        return place.floor().long()
    if rounding == "ceil":
        return place.ceil().long()
    nearest = (place + 0.5).floor()
    if rounding == "round_prefer_floor":
        nearest = torch.where((place - place.floor() - 0.5).abs() < TIE, place.floor(), nearest)
    return nearest.long()


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Weight of a pixel at that distance.

    Source: Keys 1981, Cubic convolution interpolation for digital image processing.
    """
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros(())))
