"""Fold constants and remove operations that do nothing, with onnxscript's passes.

`onnxscript.optimizer.optimize` as a whole also folds BatchNorm into convolutions, drops biases that happen to be zero
and turns Flatten into Reshape. A model that is to be trained, pruned and written back needs all three as they were,
so the passes are put together here from onnxscript's parts.
"""

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
from onnxscript import optimizer, rewriter
from onnxscript.rewriter import pattern
from onnxscript.rewriter.rules import common as known

NO_LIMIT = 1 << 40
"""Fold constants of any size: with the default limits LSTM weights stay behind Slice and Concat chains."""
ROUNDS = 4
"""Folding uncovers rewriting and the other way round; two rounds do for every model seen."""


def _without(operator: str, number: float) -> pattern.RewriteRule:
    """x <operator> number -> x. onnxscript's own take 1e-8 for 0, the epsilon below many a square root."""
    neutral = pattern.Constant(number, rel_tol=0.0, abs_tol=0.0)
    return pattern.RewriteRule(lambda op, x: getattr(op, operator)(x, neutral), lambda op, x: op.Identity(x))


NEUTRAL = rewriter.RewriteRuleSet((_without("Add", 0.0), _without("Mul", 1.0)), commute=True)
RULES = (
    *NEUTRAL.rules,
    _without("Sub", 0.0),
    _without("Div", 1.0),
    known.dropout_zero_rule,
    known.dropout_inference_rule,
    known.cast_cast_rule,
    known.no_op_cast_rule,
    known.cast_constant_of_shape_rule,
    known.cast_constant_of_shape_without_value_rule,
    known.collapse_slice_rule,
    known.collapse_slice2_rule,
    known.slice_split_rule,
    known.no_op_expand_rule,
    known.materialize_reshape_shape_rule,
    known.reshape_reshape_rule,
    known.squeeze_reshape_1d_rule,
    known.unsqueeze_unsqueeze_rule,
    known.no_op_transpose_rule,
    known.transpose_transpose_rule,
    known.min_max_rule,
    known.max_min_rule,
    known.min_min_rule,
    known.max_max_rule,
    known.successive_clip_rule,
    known.successive_clip_relu_rule,
    known.successive_relu_clip_rule,
    known.successive_relu_rule,
    known.normalize_pad_format_conv_rule,
    known.fuse_pad_into_conv_rule,
)


def fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with functions inlined, constants computed and kept as initialisers, and no-ops gone."""
    folded = ir.from_proto(model)
    common.InlinePass()(folded)
    for _ in range(ROUNDS):
        result = optimizer.fold_constants(
            folded, onnx_shape_inference=True, input_size_limit=NO_LIMIT, output_size_limit=NO_LIMIT
        )
        rewriter.rewrite(folded, RULES)
        if not result.modified:
            break
    for last in (
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    ):
        last(folded)
    return ir.to_proto(folded)
