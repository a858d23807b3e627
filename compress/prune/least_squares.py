"""Least squares of a layer: what a regression of its outputs on its inputs is, and its normal equations.

`Normal` sums them up batch by batch, so that memory depends on the layer's width alone, not on the number of images.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from compress.compute.device import exact


class Regression(Protocol):
    """One linear map of a layer, Y = X W, as G independent problems of F inputs and O outputs."""

    def start(self) -> Tensor:
        """The weights as they are: [G, F, O]. The last input is the constant 1 where `has_bias`."""

    def rows(self, given: Tensor, seen: Tensor, made: Any, most: int, generator: torch.Generator) -> "Rows":
        """Inputs [G, R, F] as the pruned layer receives them, and outputs [G, R, O] as the original computed them.

        Args:
            given: the pruned layer's input.
            seen: the original layer's input.
            made: what the original layer computed from it.
            most: rows of each image, at most; drawn where there are more.
            generator: of what is drawn.
        """

    def assign(self, weights: Tensor) -> None:
        """Put weights [G, F, O] into the pruned layer."""

    @property
    def has_bias(self) -> bool:
        """Whether the last input is the constant 1."""

    def reading(self, channel: int, problem: int = 0) -> list[int]:
        """The inputs of a problem (F) that are an input channel of the layer; none where another problem reads it."""

    def remembering(self, unit: int) -> list[int]:
        """The inputs (F) that are the last state of a hidden unit of the layer; none where there is no state."""

    def making(self, channel: int) -> list[int]:
        """The outputs (O) that make an output channel, or hidden unit, of a layer that is a single problem."""


Rows = tuple[Tensor, Tensor]


@dataclass
class Normal:
    """The normal equations of a regression: sums over all rows seen so far, in float64."""

    gram: Tensor
    """X'X [G, F, F]."""
    cross: Tensor
    """X'Y [G, F, O]."""
    squares: Tensor
    """Sum of Y squared [G, O]."""

    @classmethod
    def of(cls, rows: Rows) -> "Normal":
        """Of one batch of rows; products in float32, as exact as the activations are."""
        x, y = rows
        transposed = x.transpose(1, 2)
        return cls(exact(transposed @ x), exact(transposed @ y), (exact(y) ** 2).sum(dim=1))

    def add(self, other: "Normal") -> None:
        """Take in another batch."""
        self.gram += other.gram
        self.cross += other.cross
        self.squares += other.squares

    def solve(self, start: Tensor, ridge: float, *, has_bias: bool) -> Tensor:
        """Weights [G, F, O] of least |XW - Y|^2 + lambda |W - start|^2.

        lambda is `ridge` times the mean of the Gram matrix's diagonal over the weights; a bias is not held back (but
        for a millionth of that, so that constant inputs have a solution). Inputs that are always zero keep their
        weights.
        """
        diagonal = self.gram.diagonal(dim1=1, dim2=2)
        weights = diagonal[:, :-1] if has_bias else diagonal
        penalty = torch.full_like(diagonal, 1.0) * weights.mean(dim=1, keepdim=True).clamp_min(1e-12) * ridge
        if has_bias:
            penalty[:, -1] *= 1e-6
        before = exact(start)
        step = torch.linalg.solve(self.gram + torch.diag_embed(penalty), self.cross - self.gram @ before)
        return before + step

    def error(self, weights: Tensor) -> float:
        """|XW - Y|^2 over |Y|^2, of all problems together."""
        found = exact(weights)
        squared = (found * (self.gram @ found - 2 * self.cross)).sum() + self.squares.sum()
        return float((squared / self.squares.sum().clamp_min(1e-30)).clamp_min(0.0))


def with_ones(x: Tensor, bias: bool) -> Tensor:
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1) if bias else x
