"""Layers as linear regressions, so that their weights can be solved for instead of trained.

Every layer with weights computes Y = X W + b, once its inputs are written as rows: a convolution's rows are the patches
that its kernel covers (im2col), one group of channels by itself; a transposed convolution is a convolution of its input
with zeros in between; a recurrent layer's gates are linear in its input and its last state. `Regression` says what the
rows are and puts a solution back into the layer.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from compress.prune.channels import swap_channels
from compress.prune.gate_regression import recurrent_regressions
from compress.prune.least_squares import Regression, Rows, with_ones


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
        return with_ones(x[chosen], self.has_bias)[None], y[chosen][:, self._kept][None]


def _is_plain(layer: nn.RNNBase) -> bool:
    return layer.num_layers == 1 and not layer.batch_first and not getattr(layer, "proj_size", 0)
