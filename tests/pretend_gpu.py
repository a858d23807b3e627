"""A GPU for tests on machines without one: tensors that compute on the CPU, but say that they are on `cuda:0`.

As on a real GPU, an operator that gets tensors of both devices fails, as does `.numpy()` of one that is on the GPU. A
training that runs here moves everything that it must. What it computes is what the CPU computes, to the last bit.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

GPU = torch.device("cuda", 0)
_STAND_IN = torch.device("meta")
"""What PyTorch's own code takes the GPU for: a device that is not the CPU, and whose gradients need no threads."""
aten = torch.ops.aten
MIXED = {
    *(aten.copy_, aten._to_copy, aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_),
    *(aten._ctc_loss, aten._ctc_loss_backward),
}
"""Operators that take tensors of both devices on a real GPU, too: copies, indices on the CPU, and CTC's lengths."""


class OnGpu(Tensor):
    """A tensor of the pretended GPU; `values` are where it computes."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "OnGpu":
        made: OnGpu = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=_STAND_IN,
            requires_grad=values.requires_grad,
        )
        made.values = values
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def tolist(self) -> Any:
        return self.values.tolist()

    def __getitem__(self, index: Any) -> Tensor:
        """With lists as tensors, which PyTorch would make on the stand-in, where they have no values."""
        made: Tensor = super().__getitem__(tree_map_only(list, torch.tensor, index, is_leaf=_is_list))
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = OnGpu(self.values.detach().clone())
        made = nn.Parameter(copied, self.requires_grad) if isinstance(self, nn.Parameter) else copied
        memo[id(self)] = made
        return made

    def __repr__(self, **_: Any) -> str:
        return f"OnGpu({self.values!r})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _compute(func, args, dict(kwargs or {}))


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


class _Everywhere(TorchDispatchMode):
    """Also sees what no tensor of the GPU takes part in: tensors that are made there or moved there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, dict(kwargs or {}))


def _tensor(*given: Any, device: torch.device | None = None, made: Any = torch.tensor, **more: Any) -> Tensor:
    """`torch.tensor`, which makes tensors on a device behind the back of those who watch."""
    result: Tensor = made(*given, **more).to(device)
    return result


def _apply(self: nn.Module, *given: Any, real: Any = nn.Module._apply, **more: Any) -> Any:
    """`Module._apply`, behind `Module.to`, which else gives parameters other memory: that cannot be pretended."""
    with mock.patch("torch.__future__._swap_module_params_on_conversion", True):
        return real(self, *given, **more)


@contextmanager
def pretend_gpu() -> Iterator[torch.device]:
    """A GPU while the block runs."""
    with (
        mock.patch("torch.cuda.is_available", return_value=True),
        mock.patch("torch.cuda.device_count", return_value=1),
        mock.patch("torch.cuda._lazy_init"),
        mock.patch("torch.cuda.empty_cache"),
        mock.patch("torch.tensor", _tensor),
        mock.patch("torch.nn.Module._apply", _apply),
        _Everywhere(),
    ):
        yield GPU


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
    there = [one for one in tensors if isinstance(one, OnGpu)]
    asked = kwargs.get("device")
    on_gpu = bool(there) if asked is None else torch.device(asked).type != "cpu"
    here = [one for one in tensors if not isinstance(one, OnGpu) and one.dim() > 0]
    if there and here and func.overloadpacket not in MIXED:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu in {func}.")
    assert not any(one.is_meta for one in tensors if not isinstance(one, OnGpu)), f"{func}: a tensor without values"
    if asked is not None:
        kwargs["device"] = torch.device("cpu")
    plain_args, plain_kwargs = tree_map_only(OnGpu, lambda one: one.values, (args, kwargs))
    made = func(*plain_args, **plain_kwargs)
    if func.overloadpacket.__name__.endswith("_") and isinstance(args[0], Tensor):
        return args[0]
    return tree_map_only(Tensor, OnGpu, made) if on_gpu else made
