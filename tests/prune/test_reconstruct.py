"""Reconstruction: what pruning took away comes back as far as the channels that are left can say it."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from compress.errors import ModelError
from compress.prune.channels import kept_outputs, remove_channels
from compress.prune.groups import find_groups
from compress.prune.reconstruct import bytes_per_pixel, reconstruct
from tests.prune import nets

SHAPE = (3, 8, 8)


class Twins(nn.Module):
    """Channels 4 to 7 of the first convolution are sums of 0 to 3, and the layers behind are linear in them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.AvgPool2d(2)
        self.second = nn.Conv2d(8, 4, 3, bias=False)
        self.after = nn.BatchNorm2d(4)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.after(self.second(self.pool(self.norm(self.first(x))))))


def twins() -> Twins:
    torch.manual_seed(0)
    module = Twins().eval()
    with torch.no_grad():
        for norm in (module.norm, module.after):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
        mixed = torch.randn(4, 4)
        module.first.weight[4:] = torch.einsum("om,mihw->oihw", mixed, module.first.weight[:4])
    return module


def images(count: int = 16, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(count, *SHAPE)).astype(np.float32) for _ in range(2)]


def pruned_pair(module: nn.Module, removed: dict[str, list[int]]) -> tuple[fx.GraphModule, fx.GraphModule, dict]:
    whole = fx.symbolic_trace(module)
    groups = find_groups(whole, SHAPE)
    return whole, remove_channels(whole, groups, removed), kept_outputs(whole, groups, removed)


def error(one: nn.Module, other: nn.Module) -> float:
    x = torch.from_numpy(images(seed=2)[0])
    with torch.no_grad():
        wanted = other(x)
        return float(((one(x) - wanted) ** 2).mean() / wanted.var())


def test_channels_that_others_can_replace_are_not_missed() -> None:
    """Half of the first layer's channels are linear in the others: without them the output can be the same."""
    whole, pruned, kept = pruned_pair(twins(), {"first": [4, 5, 6, 7]})
    assert kept["first"] == [0, 1, 2, 3]
    assert error(pruned, whole) > 0.1
    solved = reconstruct(whole, pruned, kept, images(), ridge=1e-9)
    assert error(pruned, whole) < 1e-6
    second = next(layer for layer in solved if layer.name == "second")
    assert second.after < 1e-6 < 0.1 < second.before


def test_an_honest_ridge_gives_most_of_it_back() -> None:
    whole, pruned, kept = pruned_pair(twins(), {"first": [4, 5, 6, 7]})
    before = error(pruned, whole)
    reconstruct(whole, pruned, kept, images())
    assert error(pruned, whole) < 0.05 * before


@pytest.mark.parametrize("name", ["SqueezeExcite", "Residual"])
def test_networks_of_every_shape_come_nearer(name: str) -> None:
    module = nets.initialise(getattr(nets, name)()).eval()
    whole = fx.symbolic_trace(module)
    groups = find_groups(whole, SHAPE)
    removed = {group.name: list(range(group.channels // 4)) for group in groups}
    pruned = remove_channels(whole, groups, removed)
    before = error(pruned, whole)
    reconstruct(whole, pruned, kept_outputs(whole, groups, removed), images())
    assert error(pruned, whole) < before


def test_nothing_pruned_nothing_changed() -> None:
    whole, pruned, kept = pruned_pair(twins(), {})
    assert kept == {}
    reconstruct(whole, pruned, kept, images())
    assert error(pruned, whole) < 1e-9


def test_the_original_stays_as_it_was_and_the_same_seed_gives_the_same() -> None:
    whole, pruned, kept = pruned_pair(twins(), {"first": [4, 6]})
    before = copy.deepcopy(whole.state_dict())
    other = copy.deepcopy(pruned)
    for module in (pruned, other):
        reconstruct(whole, module, kept, images(), positions=5, seed=3)
    assert all(torch.equal(value, before[key]) for key, value in whole.state_dict().items())
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in pruned.state_dict().items())


class Reader(nn.Module):
    """A recogniser in small: columns of a map, read by an LSTM in both directions."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, (8, 3), padding=(0, 1))
        self.recurrent = kind(8, 6, bidirectional=True)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.relu(self.conv(x)).squeeze(2).permute(2, 0, 1)
        return self.head(self.recurrent(steps)[0])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_hidden_units_and_what_reads_them(kind: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    whole = fx.symbolic_trace(Reader(kind).eval())
    groups = find_groups(whole, SHAPE)
    removed = {"recurrent": [0, 1, 6, 7], "conv": [0, 1]}
    pruned = remove_channels(whole, groups, removed)
    kept = kept_outputs(whole, groups, removed)
    assert kept["recurrent"] == [2, 3, 4, 5, 8, 9, 10, 11]
    before = error(pruned, whole)
    solved = reconstruct(whole, pruned, kept, images(32))
    assert error(pruned, whole) < 0.6 * before
    assert [layer.name for layer in solved].count("recurrent") == {nn.LSTM: 2, nn.GRU: 6}[kind]


def test_progress_counts_layers() -> None:
    whole, pruned, kept = pruned_pair(twins(), {"first": [4]})
    told: list[tuple[int, int]] = []
    reconstruct(whole, pruned, kept, images(), on_progress=lambda done, of, _: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_networks_that_do_not_belong_together() -> None:
    whole, pruned, kept = pruned_pair(twins(), {"first": [4]})
    with pytest.raises(ModelError, match=r"^reconstruct: the models differ in their operators\. Give the one that was"):
        reconstruct(fx.symbolic_trace(nets.Residual().eval()), pruned, kept, images())
    with pytest.raises(ModelError, match=r"^reconstruct: no images\."):
        reconstruct(whole, pruned, kept, [])


def test_bytes_are_those_of_the_widest_moment() -> None:
    """Both networks keep the image [3], the first layer's output [8] and the BatchNorm's [8] at most: no image then."""
    whole = fx.symbolic_trace(twins())
    image = torch.zeros(1, *SHAPE)
    assert bytes_per_pixel(whole, image) == 2 * 4 * (8 + 8)
