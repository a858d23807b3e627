"""Hidden units of recurrent layers: where they lie in the weights, and taking them out.

A unit h of an LSTM or GRU is a row of every gate in W_ih and W_hh [gates*H, ...] and in both biases, and a column of
W_hh, by which all units read it at the next step. With those gone the layer computes what it computes with the unit
held at zero: a unit that starts at 0 and whose rows are zero stays at 0 (LSTM: c = f*0 + i*tanh(0); GRU:
h = (1 - z)*tanh(0) + z*0), and nothing else ever hears of it.

PyTorch and ONNX have one number of units for all directions and layers of a module. So its units come in equal blocks,
one for each direction of each layer, of which as many must be removed, though not the same ones. Unit h of block b is
channel b*H + h; the last layer's blocks come first, so that the first channels are those of the layer's output.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Block:
    """The units of one direction of one layer."""

    layer: int
    direction: int

    @property
    def suffix(self) -> str:
        """How PyTorch ends the names of its weights."""
        return f"_l{self.layer}" + ("_reverse" if self.direction else "")


def unit_blocks(module: nn.RNNBase) -> list[Block]:
    """The blocks of a recurrent module in the order of their channels.

    >>> [block.suffix for block in unit_blocks(nn.LSTM(3, 2, num_layers=2, bidirectional=True))]
    ['_l1', '_l1_reverse', '_l0', '_l0_reverse']
    """
    directions = range(2 if module.bidirectional else 1)
    return [Block(layer, direction) for layer in reversed(range(module.num_layers)) for direction in directions]


def block_filters(module: nn.RNNBase, block: Block) -> Tensor:
    """What makes each unit of a block: its rows of W_ih and W_hh, all gates side by side, [H, gates*(I + H)]."""
    weights = [module.get_parameter(f"weight_{kind}{block.suffix}").detach() for kind in ("ih", "hh")]
    rows = torch.cat(weights, dim=1)  # [gates*H, I + H]
    return rows.reshape(-1, module.hidden_size, rows.shape[1]).transpose(0, 1).flatten(1)


def shrink_units(module: nn.RNNBase, removed: Sequence[int]) -> None:
    """Take units out of a recurrent module, in place: as many channels of each block."""
    places = _merged([*_makers(module, removed), *_readers(module, removed)])
    for (name, dim), gone in places.items():
        weight = module.get_parameter(name)
        kept = torch.tensor([k for k in range(weight.shape[dim]) if k not in gone], device=weight.device)
        setattr(module, name, nn.Parameter(weight.detach().index_select(dim, kept), weight.requires_grad))
    module.hidden_size -= len(removed) // len(unit_blocks(module))


def silence_units(module: nn.RNNBase, removed: Sequence[int]) -> None:
    """Keep units of a recurrent module, but let no other unit hear them, in place."""
    with torch.no_grad():
        for (name, dim), gone in _merged(_readers(module, removed)).items():
            weight = module.get_parameter(name)
            weight.index_fill_(dim, torch.tensor(sorted(gone), device=weight.device), 0.0)


Place = tuple[str, int, set[int]]
"""Name of a weight, its dimension, and indices along it."""


def _makers(module: nn.RNNBase, channels: Sequence[int]) -> Iterator[Place]:
    """The rows that compute units."""
    for block, units in _by_block(module, channels):
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if module.bias else ("weight_ih", "weight_hh")
        for kind in kinds:
            name = kind + block.suffix
            rows = module.get_parameter(name).shape[0]
            yield name, 0, {first + unit for first in range(0, rows, module.hidden_size) for unit in units}


def _readers(module: nn.RNNBase, channels: Sequence[int]) -> Iterator[Place]:
    """The columns by which units read units: of the same block a step before, and of the layer below."""
    for block, units in _by_block(module, channels):
        yield f"weight_hh{block.suffix}", 1, set(units)
        if block.layer + 1 < module.num_layers:
            columns = {block.direction * module.hidden_size + unit for unit in units}
            for direction in range(2 if module.bidirectional else 1):
                yield f"weight_ih{Block(block.layer + 1, direction).suffix}", 1, columns


def _by_block(module: nn.RNNBase, channels: Sequence[int]) -> Iterator[tuple[Block, list[int]]]:
    size = module.hidden_size
    for number, block in enumerate(unit_blocks(module)):
        units = [channel - number * size for channel in channels if number * size <= channel < (number + 1) * size]
        if units:
            yield block, units


def _merged(places: Sequence[Place] | Iterator[Place]) -> dict[tuple[str, int], set[int]]:
    merged: dict[tuple[str, int], set[int]] = defaultdict(set)
    for name, dim, indices in places:
        merged[name, dim] |= indices
    return merged
