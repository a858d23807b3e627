"""Layers as linear regressions, so that their weights can be solved for instead of trained.

Every layer with weights computes Y = X W + b, once its inputs are written as rows: a convolution's rows are the patches
that its kernel covers (im2col), one group of channels by itself; a transposed convolution is a convolution of its input
with zeros in between; a recurrent layer's gates are linear in its input and its last state. `Regression` says what the
rows are and puts a solution back into the layer; `Normal` sums the normal equations up batch by batch, so that memory
depends on the layer's width alone, not on the number of images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from compress.compute.device import exact
from compress.prune.channels import swap_channels


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


def regressions(layer: nn.Module, original: nn.Module, kept: Sequence[int], norm: nn.Module | None) -> list[Regression]:
    """What of a layer can be solved for; nothing of a layer that computes otherwise.

    Args:
        layer: of the pruned network; its solution is written into it.
        original: the same layer before it was pruned.
        kept: channels (or hidden units) of the original that are left.
        norm: the BatchNorm that alone reads the layer, which takes up the bias of a layer that has none.
    """
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d) and layer.padding_mode == "zeros":
        return [ConvolutionRegression(layer, kept, norm if isinstance(norm, _BatchNorm) else None)]
    if isinstance(layer, nn.Linear):
        return [LinearRegression(layer, kept)]
    if isinstance(layer, nn.RNNBase) and isinstance(original, nn.RNNBase) and _is_plain(layer):
        return recurrent_regressions(layer, original, kept)
    return []


class ConvolutionRegression:
    """A convolution of one or two dimensions, plain, in groups, depthwise or transposed."""

    def __init__(self, layer: _ConvNd, kept: Sequence[int], norm: _BatchNorm | None) -> None:
        """See `regressions`."""
        self._layer = layer
        self._kept = torch.tensor(kept)
        self._norm = norm if norm is not None and norm.running_mean is not None else None

    @property
    def has_bias(self) -> bool:
        """Whether there is a bias, of its own or of the BatchNorm behind it."""
        return self._layer.bias is not None or self._norm is not None

    def reading(self, channel: int, problem: int = 0) -> list[int]:
        """Every place of the kernel on the channel."""
        width, places = self._layer.in_channels // self._layer.groups, math.prod(self._layer.kernel_size)
        own = channel - problem * width
        return list(range(own * places, (own + 1) * places)) if 0 <= own < width else []

    def remembering(self, unit: int) -> list[int]:
        """None: there is no state."""
        return []

    def making(self, channel: int) -> list[int]:
        """The channel itself."""
        return [channel]

    def _kernel(self) -> Tensor:
        """[O, I / groups, kh, kw] of the plain convolution."""
        weight = self._layer.weight.detach()
        if self._layer.transposed:
            weight = swap_channels(weight, self._layer.groups).flip(*range(2, weight.ndim))
        return weight if weight.ndim == 4 else weight.unsqueeze(2)

    def start(self) -> Tensor:
        """[G, (I / G) * kh * kw (+ 1), O / G]."""
        kernel, groups = self._kernel(), self._layer.groups
        flat = kernel.reshape(groups, kernel.shape[0] // groups, -1).transpose(1, 2)
        if not self.has_bias:
            return flat
        bias = self._layer.bias.detach() if self._layer.bias is not None else flat.new_zeros(kernel.shape[0])
        return torch.cat([flat, bias.reshape(groups, 1, -1)], dim=1)

    def assign(self, weights: Tensor) -> None:
        """Weights and bias, or the BatchNorm's mean."""
        kernel, groups = self._kernel(), self._layer.groups
        with torch.no_grad():
            if self.has_bias:
                bias = weights[:, -1].reshape(-1)
                weights = weights[:, :-1]
                if self._layer.bias is not None:
                    self._layer.bias.copy_(bias)
                elif self._norm is not None and self._norm.running_mean is not None:
                    self._norm.running_mean.sub_(bias)  # scale * (Wx + bias - mean)
            kernel = weights.transpose(1, 2).reshape(kernel.shape)
            if self._layer.weight.ndim == 3:
                kernel = kernel.squeeze(2)
            if self._layer.transposed:
                kernel = swap_channels(kernel.flip(*range(2, kernel.ndim)), groups)
            self._layer.weight.copy_(kernel)

    def rows(self, given: Tensor, seen: Tensor, made: Any, most: int, generator: torch.Generator) -> Rows:
        """Patches at places drawn for the batch, and what the original computed there."""
        layer, images, wanted = self._layer, given, made
        if images.ndim == 3:
            images, wanted = images.unsqueeze(2), wanted.unsqueeze(2)
        stride, dilation, padded = self._padded(images)
        count, _, height, width = wanted.shape
        places = torch.randperm(height * width, generator=generator)[:most]
        top, left = places // width, places % width
        kernel = self._kernel().shape[2:]
        down = (top * stride[0])[:, None, None] + (torch.arange(kernel[0]) * dilation[0])[:, None]
        right = (left * stride[1])[:, None, None] + (torch.arange(kernel[1]) * dilation[1])[None, :]
        patches = padded[:, :, down, right]  # [N, I, P, kh, kw]
        groups = layer.groups
        x = patches.reshape(count, groups, -1, len(places), kernel[0] * kernel[1]).permute(1, 0, 3, 2, 4)
        x = x.reshape(groups, count * len(places), -1)
        if self.has_bias:
            x = torch.cat([x, x.new_ones(*x.shape[:2], 1)], dim=2)
        y = wanted[:, self._kept][:, :, top, left]  # [N, O, P]
        y = y.reshape(count, groups, -1, len(places)).permute(1, 0, 3, 2).reshape(groups, count * len(places), -1)
        return x, y

    def _padded(self, images: Tensor) -> tuple[Sequence[int], Sequence[int], Tensor]:
        """Stride and dilation of the plain convolution [N, I, H, W], and its padded input."""
        layer = self._layer
        lead = (0,) if layer.weight.ndim == 3 else ()  # a 1-D convolution has one row
        ones = (1,) if lead else ()
        stride, dilation = (*ones, *layer.stride), (*ones, *layer.dilation)
        padding = (*lead, *(int(size) for size in layer.padding))
        if not isinstance(layer, _ConvTransposeNd):
            return stride, dilation, F.pad(images, (padding[1], padding[1], padding[0], padding[0]))
        count, channels, height, width = images.shape
        spread = images.new_zeros(count, channels, (height - 1) * stride[0] + 1, (width - 1) * stride[1] + 1)
        spread[:, :, :: stride[0], :: stride[1]] = images
        sides = [d * (k - 1) - p for d, k, p in zip(dilation, layer.kernel_size, padding, strict=True)]
        ends = [side + int(extra) for side, extra in zip(sides, layer.output_padding, strict=True)]
        return (1, 1), dilation, F.pad(spread, (sides[1], ends[1], sides[0], ends[0]))


class LinearRegression:
    """A linear layer; its rows are all leading dimensions, each image's with `most` of them at most."""

    def __init__(self, layer: nn.Linear, kept: Sequence[int]) -> None:
        """See `regressions`."""
        self._layer = layer
        self._kept = torch.tensor(kept)

    @property
    def has_bias(self) -> bool:
        """Whether the layer has one."""
        return self._layer.bias is not None

    def reading(self, channel: int, problem: int = 0) -> list[int]:
        """The channel itself."""
        return [channel]

    def remembering(self, unit: int) -> list[int]:
        """None: there is no state."""
        return []

    def making(self, channel: int) -> list[int]:
        """The channel itself."""
        return [channel]

    def start(self) -> Tensor:
        """[1, I (+ 1), O]."""
        parts = [self._layer.weight.detach().T]
        if self._layer.bias is not None:
            parts.append(self._layer.bias.detach()[None])
        return torch.cat(parts)[None]

    def assign(self, weights: Tensor) -> None:
        """Weight and bias."""
        inputs = self._layer.in_features
        with torch.no_grad():
            self._layer.weight.copy_(weights[0, :inputs].T)
            if self._layer.bias is not None:
                self._layer.bias.copy_(weights[0, inputs])

    def rows(self, given: Tensor, seen: Tensor, made: Any, most: int, generator: torch.Generator) -> Rows:
        """Rows drawn from all."""
        x, y = given.flatten(0, -2), made.flatten(0, -2)
        images = max(given.shape[:-1])  # the batch is one of the leading dimensions; which one is not known
        chosen = torch.randperm(len(x), generator=generator)[: most * images]
        return _with_ones(x[chosen], self.has_bias)[None], y[chosen][:, self._kept][None]


@dataclass
class GateRegression:
    """Some gates of one direction of a recurrent layer: linear in its input, in its last state, or in both.

    The last state is the original's own, without the hidden units that are gone: what the pruned layer's will be once
    its gates are right.
    """

    layer: nn.RNNBase
    original: nn.RNNBase
    units: Sequence[int]
    """Hidden units of this direction that are left."""
    gates: Sequence[int]
    """Blocks of rows of the weights."""
    reads: tuple[str, ...]
    """`ih`, `hh` or both."""
    reverse: bool

    @property
    def has_bias(self) -> bool:
        """Whether the layer has one."""
        return self.layer.bias

    def reading(self, channel: int, problem: int = 0) -> list[int]:
        """The channel itself, which comes before the state."""
        return [channel] if "ih" in self.reads else []

    def remembering(self, unit: int) -> list[int]:
        """The unit, if its direction is this one's."""
        own, first = self._own_unit(unit), self.original.input_size if "ih" in self.reads else 0
        return [first + own] if "hh" in self.reads and own is not None else []

    def making(self, channel: int) -> list[int]:
        """The unit in every gate."""
        own, size = self._own_unit(channel), self.original.hidden_size
        return [] if own is None else [number * size + own for number in range(len(self.gates))]

    def _own_unit(self, unit: int) -> int | None:
        """A hidden unit of the layer as one of this direction; None for the other's."""
        own = unit - (self.original.hidden_size if self.reverse else 0)
        return own if 0 <= own < self.original.hidden_size else None

    @property
    def _suffix(self) -> str:
        return "_l0_reverse" if self.reverse else "_l0"

    def _own_rows(self) -> Tensor:
        size = self.layer.hidden_size
        return torch.cat([torch.arange(gate * size, (gate + 1) * size) for gate in self.gates])

    def _original_rows(self) -> Tensor:
        units = torch.tensor(self.units)
        return torch.cat([gate * self.original.hidden_size + units for gate in self.gates])

    def start(self) -> Tensor:
        """[1, inputs (+ 1), gates * H]."""
        own = self._own_rows()
        parts = [self._tensor(self.layer, f"weight_{read}")[own].T for read in self.reads]
        if self.has_bias:
            parts.append(self._summed_bias(self.layer, own, self.reads)[None])
        return torch.cat(parts)[None]

    def assign(self, weights: Tensor) -> None:
        """Weights, and the bias into the first of the layer's two."""
        own, first = self._own_rows(), 0
        with torch.no_grad():
            for read in self.reads:
                target = self._tensor(self.layer, f"weight_{read}")
                target[own] = weights[0, first : first + target.shape[1]].T.to(target.dtype)
                first += target.shape[1]
            if self.has_bias:
                bias = self._tensor(self.layer, f"bias_{self.reads[0]}")
                others = self._summed_bias(self.layer, own, self.reads) - bias[own]
                bias[own] = (weights[0, first] - others).to(bias.dtype)

    def rows(self, given: Tensor, seen: Tensor, made: Any, most: int, generator: torch.Generator) -> Rows:
        """All steps of all images; `made` is (output [T, N, D * H], state)."""
        last = self._last_state(made[0])
        inputs = {"ih": given, "hh": last[..., torch.tensor(self.units)]}
        chosen = self._original_rows()
        source = torch.cat([{"ih": seen, "hh": last}[read] for read in self.reads], dim=-1)
        weights = torch.cat([self._tensor(self.original, f"weight_{read}")[chosen] for read in self.reads], dim=1)
        y = (source @ weights.T).flatten(0, 1)
        if self.has_bias:
            y = y + self._summed_bias(self.original, chosen, self.reads)
        x = torch.cat([inputs[read] for read in self.reads], dim=-1).flatten(0, 1)
        drawn = torch.randperm(len(x), generator=generator)[: most * given.shape[1]]
        return _with_ones(x[drawn], self.has_bias)[None], y[drawn][None]

    def _last_state(self, output: Tensor) -> Tensor:
        """The state [T, N, H] that each step receives: zero at the first."""
        size = self.original.hidden_size
        own = output[..., size:] if self.reverse else output[..., :size]
        start = torch.zeros_like(own[:1])
        return torch.cat([own[1:], start]) if self.reverse else torch.cat([start, own[:-1]])

    def _summed_bias(self, layer: nn.RNNBase, rows: Tensor, reads: Sequence[str]) -> Tensor:
        """A layer adds its two biases; a regression has their sum."""
        return torch.stack([self._tensor(layer, f"bias_{read}")[rows] for read in reads]).sum(dim=0)

    def _tensor(self, layer: nn.RNNBase, kind: str) -> Tensor:
        return layer.get_parameter(f"{kind}{self._suffix}").detach()


def recurrent_regressions(layer: nn.RNNBase, original: nn.RNNBase, kept: Sequence[int]) -> list[Regression]:
    """LSTM: all gates together. GRU: reset and update gate together; of the third the two parts that meet behind a
    product by themselves."""
    size = original.hidden_size
    found: list[Regression] = []
    for direction in range(2 if layer.bidirectional else 1):
        units = [unit - direction * size for unit in kept if direction * size <= unit < (direction + 1) * size]
        if layer.mode == "GRU":
            parts = [((0, 1), ("ih", "hh")), ((2,), ("ih",)), ((2,), ("hh",))]
            if type(layer) is not nn.GRU:  # one whose third gate reads the state otherwise
                parts = parts[:2]
        else:
            parts = [(tuple(range(4 if layer.mode == "LSTM" else 1)), ("ih", "hh"))]
        found += [GateRegression(layer, original, units, gates, reads, direction == 1) for gates, reads in parts]
    return found


def _is_plain(layer: nn.RNNBase) -> bool:
    return layer.num_layers == 1 and not layer.batch_first and not getattr(layer, "proj_size", 0)


def _with_ones(x: Tensor, bias: bool) -> Tensor:
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1) if bias else x
