"""What is known of a tensor's range from how it is computed."""

import operator
from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn

from compress.quant.int8_layers import IntegerHardSwish
from compress.quant.nodes import PASS_THROUGH, data_of, is_computed, is_move, module_of, operands
from compress.quant.pact import HARD_SWISH_MINIMUM, PACT

WITHIN_RANGE = PASS_THROUGH | {"GlobalAveragePool", "AveragePool", "Resize", "Split"}
"""Operators whose results lie between their input's ends."""


def value_range(module: fx.GraphModule, node: fx.Node, asymmetric: bool) -> tuple[float | None, float | None]:
    """What is known of a tensor's range from how it is computed: (lower end or None, exact upper end or None)."""
    layer = module_of(module, node)
    if isinstance(layer, PACT) or is_move(node) or node.meta.get("op_type") in WITHIN_RANGE:
        return value_range(module, data_of(node), asymmetric)
    if node.meta.get("op_type") in ("HardSigmoid", "Sigmoid", "Softmax") or (
        isinstance(layer, nn.Hardtanh) and (layer.min_val, layer.max_val) == (0, 1)
    ):
        return 0.0, 1.0
    if isinstance(layer, nn.ReLU) or (isinstance(layer, nn.Hardtanh) and layer.min_val == 0):
        return 0.0, None
    if isinstance(layer, nn.Hardswish | IntegerHardSwish):
        return (HARD_SWISH_MINIMUM if asymmetric else None), None
    op_type, given = node.meta.get("op_type", ""), operands(node)
    computed = [x for x in given if is_computed(x)]
    if len(computed) == 1 and len(given) == 2:
        number = _number(module, next(x for x in given if x is not computed[0]))
        return _with_number(op_type, value_range(module, computed[0], asymmetric), number)
    combine = _COMBINE.get(op_type)
    if combine is None or len(computed) < len(given):
        return None, None
    return combine([value_range(module, x, asymmetric) for x in given]), None


Range = tuple[float | None, float | None]


def _number(module: fx.GraphModule, operand: Any) -> float | None:
    """The single number that a constant operand is, or None."""
    if isinstance(operand, fx.Node):
        constant = operator.attrgetter(str(operand.target))(module)
        operand = constant.item() if isinstance(constant, Tensor) and constant.numel() == 1 else None
    return float(operand) if isinstance(operand, int | float) else None


def _with_number(op_type: str, known: Range, number: float | None) -> Range:
    """The range of x + number, or x * number with a positive one; zero lies in it, as in every quantiser's.

    >>> _with_number("Add", (-0.375, None), 0.25), _with_number("Add", (0.0, None), 2.0), _with_number("Mul", (0, 1), 3)
    ((-0.125, None), (0.0, None), (0.0, 3))
    """
    lower, upper = known
    if number is None or lower is None:
        return None, None
    if op_type == "Add":
        ends = lower + number, None if upper is None else upper + number
    elif op_type == "Mul" and number > 0:
        ends = lower * number, None if upper is None else upper * number
    else:
        return None, None
    return min(0.0, ends[0]), ends[1] if ends[1] is None or ends[1] > 0 else None


def _product_lower(ranges: list[Range]) -> float | None:
    """Lower end of a product where one factor is a gate in [0, 1], or both are positive."""
    lowers = [lower for lower, _ in ranges]
    if any(lower is None for lower in lowers):
        return None
    if all(lower == 0 for lower in lowers):
        return 0.0
    gated = any(lower == 0 and upper == 1 for lower, upper in ranges)
    return min(lower for lower in lowers if lower is not None) if gated else None


def _sum_lower(ranges: list[Range]) -> float | None:
    return 0.0 if all(lower == 0 for lower, _ in ranges) else None


def _union_lower(ranges: list[Range]) -> float | None:
    lowers = [lower for lower, _ in ranges if lower is not None]
    return min(lowers) if len(lowers) == len(ranges) else None


_COMBINE: dict[str, Callable[[list[Range]], float | None]] = {
    "Mul": _product_lower,
    "Add": _sum_lower,
    "Concat": _union_lower,
}
