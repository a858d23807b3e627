"""A network that rounds as a recipe's `quantize` step says."""

from collections.abc import Collection

from torch import fx

from compress.quant import prepare_qat
from compress.recipe import QuantizeStep


def prepare(
    module: fx.GraphModule,
    step: QuantizeStep,
    *,
    float_layers: Collection[str] = (),
    float_values: Collection[str] = (),
) -> fx.GraphModule:
    """A copy of a lowered module that rounds as the step's int8 file will, not calibrated (see `prepare_qat`)."""
    return prepare_qat(
        module,
        float_layers=float_layers,
        float_values=float_values,
        pact=step.pact.enabled,
        asymmetric_hard_swish=step.pact.asymmetric_hardswish,
        two_sided=not step.pact.symmetric,
        weight_bits=step.weight_bits,
    )
