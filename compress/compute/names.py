"""What devices and precisions are called; without PyTorch, as command lines check it before PyTorch is loaded."""

import re
from typing import Literal

Precision = Literal["float32", "bf16", "fp16"]
DEVICES = "auto, cpu, cuda, cuda:N (GPU number N, from 0) or mps"
"""What a device may be called."""
_NAME = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def is_device_name(name: str) -> bool:
    """Whether a name is one of `DEVICES`; the device need not be there.

    >>> [is_device_name(name) for name in ("auto", "cuda:1", "gpu", "cuda:")]
    [True, True, False, False]
    """
    return _NAME.fullmatch(name) is not None
