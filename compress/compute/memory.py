"""Out of memory, as one line that says what fits."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compress.compute.device import device_of
from compress.errors import DeviceError

try:
    import resource as _resource
except ImportError:  # Windows
    _resource = None  # type: ignore[assignment]

resource: Any = _resource
_SIGNS = ("out of memory", "can't allocate memory")
"""What PyTorch's errors say: those of CUDA and mps, and that of the CPU."""


def peak_memory_bytes() -> int:
    """The most memory that this process has held so far (its resident set); 0 where the system does not say."""
    if resource is None:
        return 0
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_ran_out(error: BaseException) -> bool:
    """Whether an error of PyTorch says that memory was not enough, of a GPU or of the machine."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


@contextmanager
def catch_out_of_memory(what: str, advice: str) -> Iterator[None]:
    """Say in one line that memory was not enough.

    Args:
        what: what was being done, e.g. "calibration".
        advice: what to do, a sentence.

    Raises:
        DeviceError: instead of PyTorch's error.
    """
    try:
        yield
    except RuntimeError as error:
        if not memory_ran_out(error):
            raise
        raise DeviceError(f"{what}: out of memory. {advice}") from error


def largest_batch(module: nn.Module, images: Tensor) -> int:
    """How many of the images pass through a module forwards and backwards, tried by halving their number; 0 if not one.

    An estimate: the loss, and a teacher on the same device, need memory of their own. Gradients are left as None.

    Args:
        module: in training mode.
        images: [N, C, H, W], too many.
    """
    count = len(images) // 2
    while count:
        if _passes(module, images[:count]):
            return count
        count //= 2
    return 0


def _passes(module: nn.Module, images: Tensor) -> bool:
    try:
        made = module(images)
        (made[0] if isinstance(made, tuple) else made).float().sum().backward()
    except RuntimeError as error:
        if not memory_ran_out(error):
            raise
        return False
    finally:
        module.zero_grad(set_to_none=True)
        if device_of(module).type == "cuda":
            torch.cuda.empty_cache()
    return True
