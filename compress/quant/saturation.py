"""Between which values a tensor matters to what reads it.

A range in front of a hard-swish need not reach below -3, where the result is 0: in PP-OCRv4's recogniser values down to
-40 stand there, of which none makes a difference, and a symmetric range spends half of its 256 steps on them.
"""

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, fx

from compress.quant.nodes import PASS_THROUGH, data_of, is_move, module_of
from compress.quant.pact import PACT

EVERYTHING = (-inf, inf)
ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Erf"}) | {
    "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Relu", "Sigmoid", "Softplus", "Tanh"
}  # fmt: skip
"""Operators whose every value comes from one value of each operand."""
NEAR, FINENESS, FAR = 16, 64, (64.0, 256.0, 1024.0, 4096.0)
"""Functions are looked at between minus and plus the first, at so many places in an interval of 1, and at some far
places: what is all but flat near zero, as a LeakyRelu's lower half, is not far out."""
UNNOTICED = 2.0**-12
"""A result that changes by less than this share of what it ranges over (at most 1) counts as the same: a sixteenth of a
step of values in [0, 1]."""


@dataclass(frozen=True)
class _Values:
    """What a node computes of each place of the grid."""

    values: Tensor
    """[P]"""
    moved: fx.Node | None = None
    """The last node that moved them: of others, values in the same place are of different elements."""


def readable_range(module: fx.GraphModule, node: fx.Node) -> tuple[float, float]:
    """Between which values a tensor matters to its readers: (lower, upper), infinite where nothing is known.

    What is computed from it alone, value by value, is tried out on a grid, whatever the operators: a hard-swish is 0
    from -3 down, a hard-sigmoid of slope 1/6 is constant beyond -3 and 3, a GELU in five operators is 0 from -4 down.

    Args:
        module: imported; quantisers may have been inserted.
        node: the tensor, of a range that holds 0.
    """
    far = torch.tensor(FAR)
    grid = torch.cat([-far.flip(0), torch.arange(-NEAR * FINENESS, NEAR * FINENESS + 1) / FINENESS, far])
    known, lower, upper = {node: _Values(grid)}, 0.0, 0.0
    for reader in _behind(node):
        read = [x for x in reader.all_input_nodes if x in known]
        if not read or reader.meta.get("op_type") == "Shape":
            continue
        found = _values(module, reader, known)
        if found is not None:
            known[reader] = found
            continue
        for x in read:
            low, high = _saturation(grid, known[x].values)
            lower, upper = min(lower, low), max(upper, high)
        if (lower, upper) == EVERYTHING:
            break
    return lower, upper


def _behind(node: fx.Node) -> Iterator[fx.Node]:
    """The nodes that run after one."""
    node = node.next
    while node.op != "root":
        yield node
        node = node.next


def _values(module: fx.GraphModule, node: fx.Node, known: Mapping[fx.Node, _Values]) -> _Values | None:
    """What a node computes from known values alone, one by one; None if it does anything else."""
    layer = module_of(module, node)
    if isinstance(layer, PACT):
        return known.get(data_of(node))
    if is_move(node) or node.meta.get("op_type") in PASS_THROUGH:
        before = known.get(data_of(node))
        return None if before is None else _Values(before.values, node)
    if node.meta.get("op_type") not in ELEMENTWISE:
        return None
    given = {x: known[x].values if x in known else _number(module, x) for x in node.all_input_nodes}
    moved = {known[x].moved for x in node.all_input_nodes if x in known}
    if len(moved) > 1 or any(value is None for value in given.values()):
        return None
    args: Any = fx.node.map_arg(node.args, given.__getitem__)
    options: Any = fx.node.map_arg(node.kwargs, given.__getitem__)
    with torch.no_grad():
        found: Tensor = (node.target if layer is None else layer)(*args, **options)  # type: ignore[operator]
    return _Values(found, moved.pop())


def _number(module: fx.GraphModule, node: fx.Node) -> Tensor | None:
    """The single number that a constant is, of shape [1]."""
    value = operator.attrgetter(str(node.target))(module) if node.op == "get_attr" else None
    return value.reshape(1) if isinstance(value, Tensor) and value.numel() == 1 else None


def _saturation(grid: Tensor, values: Tensor) -> tuple[float, float]:
    """Beyond which places of a grid [P] values [P] stay as they are; infinite where they do not."""
    near = values[len(FAR) : -len(FAR)]
    tolerance = UNNOTICED * min(1.0, float(near.max() - near.min()))
    ends = []
    for places, found in ((grid, values), (grid.flip(0), values.flip(0))):
        same = int(((found - found[0]).abs() <= tolerance).long().cumprod(0).sum())
        ends.append(float(places[same - 1]) if same > len(FAR) + 1 else float(places[0]) * inf)
    return ends[0], ends[1]
