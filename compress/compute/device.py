"""Where networks are trained, reconstructed and calibrated: on the CPU or on a GPU.

A function that trains or measures a network works where the network's weights are, and moves its images there. So the
device is chosen in one place, by whoever imports the network.
"""

import dataclasses
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from compress.compute.names import DEVICES, is_device_name
from compress.errors import DeviceError

T = TypeVar("T")
CPU = torch.device("cpu")


def find_device(name: str = "auto", local_rank: int | None = None) -> torch.device:
    """The device of that name.

    `auto` is a CUDA GPU if there is one, else the CPU. It is never `mps`, whose results nobody has compared yet. Where
    there are several processes on a machine, `auto` and `cuda` are the GPU of the process's number.

    Args:
        name: one of `DEVICES`.
        local_rank: number of the process on its machine, where there are several.

    Raises:
        DeviceError: the name is unknown, or there is no such device.
    """
    if not is_device_name(name):
        raise DeviceError(f"device: got {name!r}. Must be {DEVICES}.")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return CPU
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise DeviceError("device: got 'mps', but PyTorch finds no Apple GPU here. Use cpu or auto.")
        return torch.device("mps")
    return _find_cuda("cuda" if name == "auto" else name, local_rank or 0)


def _find_cuda(name: str, local_rank: int) -> torch.device:
    """A CUDA GPU; its convolutions compute in float32 from now on, not in TF32, as on every other device."""
    if not torch.cuda.is_available():
        built = "finds no CUDA GPU here" if torch.version.cuda else f"{torch.__version__} is built without CUDA"
        raise DeviceError(f"device: got {name!r}, but PyTorch {built}. Use cpu or auto.")
    index = int(name.partition(":")[2] or local_rank)
    count = torch.cuda.device_count()
    if index >= count:
        there = "there is one GPU, cuda:0" if count == 1 else f"there are {count} GPUs, cuda:0 to cuda:{count - 1}"
        wanted = name if ":" in name else f"cuda:{index}"
        raise DeviceError(f"device: got {wanted!r}, but {there}. Use one of them, fewer processes, cpu or auto.")
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda", index)


def device_of(module: nn.Module) -> torch.device:
    """Where a module's weights are; the CPU if it has none."""
    weight = next(module.parameters(), next(module.buffers(), None))
    return CPU if weight is None else weight.device


def move(value: T, device: torch.device) -> T:
    """The same value with every tensor on a device; on the CPU the very same object.

    Looks into dataclasses, tuples, lists and dicts; anything else stays as it is.
    """
    if device.type == "cpu":
        return value
    moved: Any = _moved(value, device)
    return moved


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        return dataclasses.replace(value, **{name: _moved(one, device) for name, one in fields.items()})
    if isinstance(value, dict):
        return {key: _moved(one, device) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_moved(one, device) for one in value)
    return value


def exact(x: Tensor) -> Tensor:
    """In float64; on the CPU where the device has none (mps)."""
    return (x.cpu() if x.device.type == "mps" else x).double()
