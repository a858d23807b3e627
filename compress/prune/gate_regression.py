"""The gates of recurrent layers as linear regressions: on their input, and on the layer's last state."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.prune.least_squares import Regression, Rows, with_ones


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
        return with_ones(x[drawn], self.has_bias)[None], y[drawn][None]

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
