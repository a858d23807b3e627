"""Which device a name means, and what moves there."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.compute.device import CPU, device_of, exact, find_device, move
from compress.compute.memory import catch_out_of_memory, largest_batch, memory_ran_out
from compress.compute.precision import autocast, check_precision, float32_ends
from compress.errors import DeviceError
from tests.pretend_gpu import OnGpu, pretend_gpu


def gpus(patch: pytest.MonkeyPatch, count: int) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: count > 0)
    patch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("name", "count", "rank", "found"),
    [
        ("auto", 0, None, "cpu"),
        ("auto", 2, None, "cuda:0"),
        ("auto", 2, 1, "cuda:1"),
        ("cuda", 2, 1, "cuda:1"),
        ("cuda:1", 2, 0, "cuda:1"),
        ("cpu", 2, None, "cpu"),
    ],
)
def test_names(name: str, count: int, rank: int | None, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, count)
    assert str(find_device(name, rank)) == found


@pytest.mark.parametrize(
    ("name", "count", "rank", "line"),
    [
        ("gpu", 1, None, r"device: got 'gpu'. Must be auto, cpu, cuda, cuda:N"),
        ("cuda", 0, None, r"device: got 'cuda', but PyTorch .*(without CUDA|no CUDA GPU).*Use cpu or auto"),
        ("cuda:3", 2, None, r"device: got 'cuda:3', but there are 2 GPUs, cuda:0 to cuda:1"),
        ("cuda", 1, 1, r"device: got 'cuda:1', but there is one GPU, cuda:0. Use one of them, fewer processes"),
        ("mps", 0, None, r"device: got 'mps', but PyTorch finds no Apple GPU"),
    ],
)
def test_absent_devices(name: str, count: int, rank: int | None, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, count)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=line):
        find_device(name, rank)


@dataclass(frozen=True)
class Nested:
    images: Tensor
    targets: Any
    names: tuple[str, ...] = ("a",)


def test_moves_what_is_inside() -> None:
    value = Nested(torch.ones(2), {"maps": [torch.zeros(1)], "pair": (torch.ones(1), 3)})
    assert move(value, CPU) is value
    with pretend_gpu() as gpu:
        moved = move(value, gpu)
        tensors = [moved.images, moved.targets["maps"][0], moved.targets["pair"][0]]
        assert all(isinstance(one, OnGpu) for one in tensors)
        assert (moved.names, moved.targets["pair"][1]) == (("a",), 3)
        assert device_of(nn.Linear(1, 1).to(gpu)) == gpu


def test_exact_is_float64() -> None:
    assert exact(torch.ones(1)).dtype == torch.float64


# --- memory -----------------------------------------------------------------------------------------------------------


class Hungry(nn.Module):
    """Has memory for so many images."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return x * self.weight


@pytest.mark.parametrize(("room", "fits"), [(3, 2), (8, 8), (1, 1), (0, 0)])
def test_largest_batch(room: int, fits: int) -> None:
    module = Hungry(room)
    assert largest_batch(module, torch.ones(16, 3, 2, 2)) == fits
    assert module.weight.grad is None


def test_out_of_memory_is_one_line() -> None:
    with (
        pytest.raises(DeviceError, match=r"calibration: out of memory. Try batch_size: 2."),
        catch_out_of_memory("calibration", "Try batch_size: 2."),
    ):
        Hungry(1)(torch.ones(2))
    with pytest.raises(RuntimeError, match="other"), catch_out_of_memory("calibration", ""):
        raise RuntimeError("other")


def test_what_says_that_memory_ran_out() -> None:
    texts = ["MPS backend out of memory", "[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"]
    assert all(memory_ran_out(RuntimeError(text)) for text in texts)
    assert not memory_ran_out(RuntimeError("shapes differ"))
    assert not memory_ran_out(ValueError("out of memory"))


# --- precision --------------------------------------------------------------------------------------------------------


def test_fp16_is_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    check_precision("bf16", CPU)
    check_precision("fp16", torch.device("cuda"))
    with pytest.raises(DeviceError, match="precision: got 'fp16', which is for CUDA; the device is cpu"):
        check_precision("fp16", CPU)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    with pytest.raises(DeviceError, match=r"precision: got 'bf16', which Tesla T4 does not compute in. Use fp16"):
        check_precision("bf16", torch.device("cuda"))


def test_probabilities_are_not_rounded() -> None:
    """In bf16 the sigmoid of 7 is 1."""
    module = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Sigmoid())
    nn.init.constant_(module[0].weight, 7.0)
    with torch.no_grad(), autocast("bf16", CPU), float32_ends(module, "bf16"):
        made = module(torch.ones(1, 1))
    assert made.dtype == torch.float32
    assert 0.999 < float(made) < 0.9995
    with torch.no_grad(), autocast("bf16", CPU):
        assert float(module(torch.ones(1, 1))) == 1.0
