"""Nodes without a trainable form stay as they are, and ONNX's own reference implementation computes them.

That is slow and has no gradient. It is enough where none is needed: in front of the first weights, on the way to an
output that is not trained on, and anywhere for pruning and calibration. Training that needs the gradient is refused.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, fx, nn

from compress.errors import ModelError, TrainingError, reason

CONTROL_FLOW = frozenset(("If", "Loop", "Scan", "SequenceMap"))
"""Hold graphs of their own."""
RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)
RESIZE_SETTINGS = (1, 2)
"""Inputs of Resize that are numbers to compute with, region and scales, and no weights."""
OTHER_VALUES = ("Sequence", "Optional", "SplitToSequence", "ConcatFromSequence", "String")
"""Operators of these names are of sequences and texts, not tensors."""


class KeptNode(nn.Module):
    """One ONNX node, run by ONNX's reference implementation.

    Args:
        node: of the standard domain, without graphs inside.
        opset: that it is of.
    """

    def __init__(self, node: onnx.NodeProto, opset: int) -> None:
        """Keep the node."""
        super().__init__()
        self.node, self.opset = node, opset
        self._evaluator: ReferenceEvaluator | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What is copied: the evaluator is made anew."""
        return {**self.__dict__, "_evaluator": None}

    def forward(self, *given: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What the node computes: one tensor, or one for each of its outputs."""
        results = _Kept.apply(self, *given)
        return results[0] if sum(map(bool, self.node.output)) == 1 else results

    def compute(self, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run the reference implementation.

        Raises:
            ModelError: it fails.
        """
        if self._evaluator is None:
            self._evaluator = _evaluator(self.node, self.opset)
        names = [name for name in dict.fromkeys(self.node.input) if name]
        feeds = {name: value.detach().cpu().numpy() for name, value in zip(names, given, strict=True)}
        try:
            found = self._evaluator.run(None, feeds)
        except Exception as error:  # of numpy, in many kinds
            raise ModelError(
                f"{described(self.node)}: ONNX's reference implementation fails ({reason(error)})."
            ) from error
        device = given[0].device if given else torch.device("cpu")
        return tuple(torch.from_numpy(np.array(one)).to(device) for one in found)

    def extra_repr(self) -> str:
        """Show the operator."""
        return self.node.op_type


class _Kept(torch.autograd.Function):
    """A kept node for autograd, which must not go through it."""

    @staticmethod
    def forward(ctx: Any, kept: KeptNode, *given: Tensor) -> tuple[Tensor, ...]:
        ctx.node = kept.node
        results = kept.compute(given)
        ctx.mark_non_differentiable(*(one for one in results if not one.is_floating_point()))
        return results

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise TrainingError(
            f"{described(ctx.node)}: has no trainable form, and stands between weights and the output. The model "
            "can be pruned, and quantised with epochs: 0. To train it, export it without this operator."
        )


def why_not_kept(node: onnx.NodeProto, constants: Mapping[str, np.ndarray], opset: int) -> str:
    """Why a node cannot be kept; empty where it can."""
    if node.domain not in ("", "ai.onnx"):
        return "an operator of another domain"
    if node.op_type in CONTROL_FLOW:
        return "a graph of its own, which depends on what is computed: export the model without it"
    if node.op_type in RANDOM or node.op_type.startswith(OTHER_VALUES):
        return "not a function of tensors"
    for place, name in enumerate(node.input):
        array = constants.get(name)
        is_weight = array is not None and array.dtype.kind == "f" and array.size > 1
        if is_weight and not (node.op_type == "Resize" and place in RESIZE_SETTINGS):
            return f"weights ({name!r}) that cannot be trained"
    try:
        _evaluator(node, opset)
    except Exception:  # it knows most operators, not all, and says so in several ways
        return "no reference implementation"
    return ""


def described(node: onnx.NodeProto) -> str:
    """How messages name a node."""
    return f"node {node.name or node.output[0]!r} ({node.op_type})"


def kept_nodes(module: fx.GraphModule) -> dict[str, bool]:
    """The kept nodes of an imported module, as messages name them -> whether training needs their gradient."""
    output = next(node for node in reversed(module.graph.nodes) if node.op == "output")
    trained = output.args[0][0] if isinstance(output.args[0], tuple | list) else output.args[0]
    needed = set(_before(trained)) if isinstance(trained, fx.Node) else set()
    weighted: set[fx.Node] = set()
    found: dict[str, bool] = {}
    for node in module.graph.nodes:
        layer = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        has_weights = layer is not None and next(layer.parameters(), None) is not None
        has_weights |= node.op == "get_attr" and isinstance(getattr(module, str(node.target)), nn.Parameter)
        behind = any(given in weighted for given in node.all_input_nodes)
        if has_weights or behind:
            weighted.add(node)
        if isinstance(layer, KeptNode):
            found[described(layer.node)] = behind and node in needed
    return found


def _before(node: fx.Node) -> Iterator[fx.Node]:
    """A node and all that it depends on."""
    stack, seen = [node], {node}
    while stack:
        current = stack.pop()
        yield current
        for given in current.all_input_nodes:
            if given not in seen:
                seen.add(given)
                stack.append(given)


def _evaluator(node: onnx.NodeProto, opset: int) -> ReferenceEvaluator:
    names = [name for name in dict.fromkeys(node.input) if name]
    graph = helper.make_graph(
        [node],
        "kept",
        [helper.make_empty_tensor_value_info(name) for name in names],
        [helper.make_empty_tensor_value_info(name) for name in node.output if name],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return ReferenceEvaluator(model)
