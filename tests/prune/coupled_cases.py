"""Networks as their files, what can be pruned in them, and what they compute with some channels at zero."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import torch
from torch import fx, nn

from compress.graph import to_onnx, to_torch
from compress.graph.canonical import canonicalise
from compress.measure.session import Session
from compress.prune.channels import ChannelGroup, remove_channels
from compress.prune.groups import survey_channels
from tests.hard_cases.torch_cases import script

SHAPE = (3, 32, 64)


class Case:
    """A network with random weights, as its file and as what is imported from it."""

    def __init__(
        self, make: Callable[[], nn.Module], *, layer_norms: bool = False, shape: tuple[int, int, int] = SHAPE
    ) -> None:
        self.network = make().eval()
        self.file = canonicalise(script(self.network, shape))  # which draws the network's weights
        self.module = to_torch(self.file)
        survey = survey_channels(self.module, shape, layer_norms=layer_norms)
        self.groups, self.protected = survey.groups, survey.protected

    def __getitem__(self, name: str) -> ChannelGroup:
        """The group of a layer, by its name in PyTorch and the part behind the colon."""
        layer, _, part = name.partition(":")
        start = layer.replace(".", "_") + "_"
        found = [
            group for group in self.groups if group.name.startswith(start) and group.name.partition(":")[2] == part
        ]
        assert len(found) == 1, [group.name for group in self.groups]
        return found[0]

    def pruned(self, removed: Mapping[str, Sequence[int]]) -> fx.GraphModule:
        """Without some channels of some groups."""
        made = remove_channels(self.module, self.groups, {self[name].name: some for name, some in removed.items()})
        assert isinstance(made, fx.GraphModule)
        return made


@cache
def case(make: Callable[[], nn.Module], *, layer_norms: bool = False) -> Case:
    """A case, made once."""
    torch.manual_seed(0)
    return Case(make, layer_norms=layer_norms)


def images(count: int = 3) -> np.ndarray:
    """Noise."""
    return np.random.default_rng(0).standard_normal((count, *SHAPE)).astype(np.float32)


def with_zeros(network: nn.Module, zeroed: Mapping[str, Sequence[int]]) -> np.ndarray:
    """What the PyTorch network computes with some outputs of layers at zero; a linear layer's are last, else second."""

    def zero(places: Sequence[int], axis: int) -> Any:
        return lambda _, __, output: output.index_fill(axis, torch.tensor(places, dtype=torch.long), 0.0)

    hooks = []
    for name, places in zeroed.items():
        layer = network.get_submodule(name)
        hooks.append(layer.register_forward_hook(zero(places, -1 if isinstance(layer, nn.Linear) else 1)))
    with torch.no_grad():
        found: np.ndarray = network(torch.from_numpy(images())).numpy()
    for hook in hooks:
        hook.remove()
    return found


def check(given: Case, pruned: fx.GraphModule, wanted: np.ndarray) -> onnx.ModelProto:
    """The pruned network and its file compute what is wanted, which is not what the whole network computes."""
    with torch.no_grad():
        np.testing.assert_allclose(pruned(torch.from_numpy(images())).numpy(), wanted, rtol=1e-4, atol=1e-5)
    written = to_onnx(pruned, given.file)
    np.testing.assert_allclose(Session(written, optimise=False).run(images()), wanted, rtol=1e-4, atol=1e-5)
    assert not np.allclose(with_zeros(given.network, {}), wanted, rtol=1e-3)
    return written


def held(group: ChannelGroup, layer: str, side: str = "out") -> list[tuple[int, ...]]:
    """A layer's channels for each channel of the group."""
    found = [member for member in group.members if member.layer.startswith(layer) and member.side == side]
    return [tuple(sorted(sum(places, ()))) for places in zip(*(each.indices for each in found), strict=True)]
