"""Mixed precision: a network's forward pass in 16 bits, its weights, gradients and losses in float32.

Source: Micikevicius et al. 2018, "Mixed Precision Training" (arXiv 1710.03740), as PyTorch's autocast does it.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from compress.compute.names import Precision
from compress.errors import DeviceError

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_ENDS = (nn.Sigmoid, nn.Softmax, nn.LogSoftmax)


def check_precision(precision: Precision, device: torch.device) -> None:
    """
    Raises:
        DeviceError: the device does not compute in it.
    """
    if precision == "fp16" and device.type != "cuda":
        raise DeviceError(
            f"precision: got 'fp16', which is for CUDA; the device is {device.type}. Use bf16 or float32."
        )
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name(device)
        raise DeviceError(f"precision: got 'bf16', which {name} does not compute in. Use fp16 or float32.")


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Where layers with weights compute in 16 bits; nothing for float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_TYPES[precision])


def make_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Scales losses so that gradients in fp16 do not vanish; passes everything on as it is in other precisions."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


@contextmanager
def float32_ends(module: nn.Module, precision: Precision) -> Iterator[None]:
    """Have sigmoids and softmaxes compute in float32 while the block runs.

    A probability of 0.999 is 1 in bf16: its logarithm, and what a loss makes of it, would be lost.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _ENDS)] if precision != "float32" else []
    handles = [layer.register_forward_pre_hook(_in_float32) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _in_float32(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value.float() for value in given)
