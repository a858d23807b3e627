"""Several processes that share a run, started by PyTorch's launcher: `torchrun --nproc-per-node 2 -m compress run ...`.

The first process does what a single one would, and is the only one that writes results. The others wait for what it
sends them, and take their share of it. What is shared is small enough to be said in a few collective operations:

- training: each process has its share of every batch, and gradients are averaged, weighted by the shares' images. So
  batches, their order and the learning rate are the recipe's, however many processes there are (but not which
  unlabelled crops come beside a detector's labelled ones: each share draws its own).
- a list of pieces of work: a counter in the store that the launcher's rendezvous made says whose turn it is.

`DistributedDataParallel` is not used: shares of a batch differ in size, outputs that are not trained leave parameters
without a gradient, and the layers' features are read by hooks on the module itself. One `all_reduce` of a few
megabytes for each step is simpler than to arrange all that.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compress.compute.launcher import process_count, restarts
from compress.errors import ProcessError, first_line

MEETING = timedelta(minutes=15)
"""How long the processes may take to start."""
PATIENCE = timedelta(days=30)
"""How long a process waits for the others: the first one may measure for hours while they have nothing to do."""


@dataclass(frozen=True)
class Team:
    """This process among those of a run."""

    rank: int
    count: int
    store: dist.Store
    gradients: dist.ProcessGroup
    """What gradients are averaged in: NCCL between GPUs, else gloo."""

    @classmethod
    def join(cls, device: torch.device) -> "Team | None":
        """Meet the other processes; None where there are none.

        Raises:
            ProcessError: they cannot be reached.
        """
        if process_count() == 1:
            return None
        with _reaching_others():
            shared, rank, count = next(dist.rendezvous("env://", timeout=MEETING))
            store = dist.PrefixStore(f"attempt{restarts()}", shared)  # else addresses of killed processes are found
            dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=PATIENCE)
            if device.type == "cuda":
                torch.cuda.set_device(device)  # NCCL looks there
            backend = "nccl" if device.type == "cuda" else "gloo"
            group = dist.new_group(backend=backend, timeout=PATIENCE)
        assert group is not None
        return cls(rank, count, store, group)

    @property
    def is_main(self) -> bool:
        """Whether this process writes the results."""
        return self.rank == 0

    def send(self, value: Any) -> None:
        """Give a value to all others, which `receive` it."""
        with _reaching_others():
            dist.broadcast_object_list([value], src=0)

    def receive(self) -> Any:
        """What the first process sends; waits for it."""
        box: list[Any] = [None]
        with _reaching_others():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in their order, in the first process; nothing in the others."""
        found: list[Any] | None = [None] * self.count if self.is_main else None
        with _reaching_others():
            dist.gather_object(value, found, dst=0)
        return found or []

    def same(self, value: Any) -> Any:
        """The first process's value, in every process."""
        if not self.is_main:
            return self.receive()
        self.send(value)
        return value

    def wait(self) -> None:
        """Until all processes have come here."""
        with _reaching_others():
            dist.barrier()

    def leave(self) -> None:
        """Say good-bye; the others may go on without this process."""
        dist.destroy_process_group()

    def turns(self, name: str) -> "Turns":
        """Whose turn it is in a list of pieces of work of that name."""
        return Turns(self.store, name)

    def average(self, module: nn.Module, loss: Tensor, images: int) -> tuple[float, int]:
        """Make gradients, and live BatchNorms' running statistics, those of all processes' images, in place.

        Args:
            module: after the backward pass; a parameter that has a gradient in no process keeps none.
            loss: the mean over this process's images, a scalar.
            images: how many these are.

        Returns:
            Mean loss over all images, and their number.
        """
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        statistics = [
            buffer
            for layer in module.modules()
            if isinstance(layer, _BatchNorm) and layer.training
            for buffer in (layer.running_mean, layer.running_var)
            if buffer is not None
        ]
        values = [*(_gradient(parameter) for parameter in parameters), *statistics]
        has = [0.0 if parameter.grad is None else 1.0 for parameter in parameters]
        told = loss.new_tensor([*has, float(loss), 1.0])
        flat = torch.cat([*(value.reshape(-1).to(told) for value in values), told]) * images
        with _reaching_others():
            dist.all_reduce(flat, group=self.gradients)
        total = int(flat[-1])
        flat /= total
        means = flat[: -len(told)].split([value.numel() for value in values])
        with torch.no_grad():
            for value, mean in zip(values, means, strict=True):
                value.copy_(mean.reshape(value.shape))
        for parameter, value, seen in zip(parameters, values, flat[-len(told) :].tolist(), strict=False):
            parameter.grad = value if seen else None
        return float(flat[-2]), total


class Turns:
    """Which pieces of a list are this process's: each asks in the list's order, whoever is free first gets the next."""

    def __init__(self, store: dist.Store, name: str) -> None:
        """Take the store that all processes see."""
        self._store, self._key = store, f"turns/{name}"
        self._next = -1

    def is_mine(self, place: int) -> bool:
        """Whether the piece at that place is this process's; places must rise from call to call."""
        if self._next < place:
            with _reaching_others():
                self._next = self._store.add(self._key, 1) - 1
        return self._next == place


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


@contextmanager
def _reaching_others() -> Iterator[None]:
    """
    Raises:
        ProcessError: the others do not answer, or one of them is gone.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:  # gloo, NCCL and the store have no kind of their own
        raise ProcessError(
            f"torchrun: another process of this run is gone, or cannot be reached ({first_line(error)}). The same "
            "command goes on from what is done."
        ) from error
