"""Ranking by what readers cannot make up for: against least squares that is solved anew for every choice."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from compress.errors import PlanError
from compress.graph import load_model, save_model, to_torch
from compress.prune.brain_surgeon import obs_scores, stored_scores
from compress.prune.channel_scores import channel_scores, lowest_channels, score_group
from compress.prune.compensation import reader_equations
from compress.prune.groups import find_groups
from compress.prune.importance import fpgm
from tests.hard_cases.cases import ALL
from tests.prune import nets
from tests.prune.test_reconstruct import SHAPE, Reader, images, twins

EVERY = 10**6
"""Rows of an image: all of them."""


def scores_of(
    module: nn.Module, ridge: float = 1e-9, shape: tuple[int, int, int] = SHAPE, given: list[np.ndarray] | None = None
) -> tuple[fx.GraphModule, dict[str, Tensor]]:
    whole = module if isinstance(module, fx.GraphModule) else fx.symbolic_trace(module)
    groups = find_groups(whole, shape)
    equations = reader_equations(whole, groups, given or images(), positions=EVERY)
    return whole, obs_scores(whole, groups, equations, ridge=ridge)


def left_wrong(rows: Tensor, wanted: Tensor, keep: list[int]) -> float:
    """Share of the variance of `wanted` [N, O] that least squares on some columns and a constant leave wrong."""
    x = torch.cat([rows[:, keep], torch.ones(len(rows), 1, dtype=rows.dtype)], dim=1)
    solution = torch.linalg.lstsq(x, wanted, driver="gelsd").solution
    variance = ((wanted - wanted.mean(dim=0)) ** 2).sum()
    return float(((x @ solution - wanted) ** 2).sum() / variance)


def test_a_channel_that_others_can_say_goes_before_one_that_they_cannot() -> None:
    """Channels 4 to 7 are sums of 0 to 3: any four can go for nothing, and no fifth one."""
    _, scores = scores_of(twins())
    rising = scores["first"].sort().values
    assert float(rising[3]) < 1e-4
    assert float(rising[4]) > 1e-2


def test_scores_are_the_errors_of_least_squares_on_what_is_left() -> None:
    """Each removal against trying every channel that is left, by torch.linalg.lstsq on the rows themselves."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    whole, found = scores_of(net, ridge=1e-12)
    with torch.no_grad():
        read = torch.cat([whole.get_submodule("1")(whole.get_submodule("0")(torch.from_numpy(x))) for x in images()])
        rows = nn.functional.unfold(read, 3).transpose(1, 2).flatten(0, 1).double()  # [N, 5 * 9]
        made = whole.get_submodule("2")(read).flatten(2).transpose(1, 2).flatten(0, 1).double()
    left, removed = list(range(5)), []
    for _ in range(3):
        tried = {
            channel: left_wrong(rows, made, [9 * each + k for each in left if each != channel for k in range(9)])
            for channel in left
        }
        best = min(tried, key=lambda channel: tried[channel])
        left.remove(best)
        removed.append(best)
        assert float(found["0"][best]) == pytest.approx(tried[best], rel=1e-2)
    assert torch.argsort(found["0"])[:3].tolist() == removed


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_unit_that_nobody_reads_goes_first(kind: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    module = Reader(kind).eval()
    whole = fx.symbolic_trace(module)
    size = whole.recurrent.hidden_size
    forward, backward = 2, size + 3  # one unit of each direction
    with torch.no_grad():
        whole.recurrent.weight_hh_l0[:, forward] = 0
        whole.recurrent.weight_hh_l0_reverse[:, backward - size] = 0
        whole.head.weight[:, [forward, backward]] = 0
    _, scores = scores_of(whole)
    group = next(group for group in find_groups(whole, SHAPE) if group.name == "recurrent")
    assert float(scores["recurrent"][[forward, backward]].max()) < 1e-6
    assert lowest_channels(group, scores["recurrent"], 2) == (forward, backward)
    with torch.no_grad():  # but not one that the layer itself reads
        whole.recurrent.weight_hh_l0[:, forward] = 1.0
    _, scores = scores_of(whole)
    assert float(scores["recurrent"][forward]) > 1e-3


def test_a_convolution_in_groups_is_several_problems() -> None:
    torch.manual_seed(0)
    whole = fx.symbolic_trace(nets.initialise(nets.Grouped()).eval())
    groups = {group.name: group for group in find_groups(whole, (3, 16, 16))}
    grouped = next(name for name, layer in whole.named_modules() if getattr(layer, "groups", 1) > 1)
    read = [group for group in groups.values() if any(m.layer == grouped and m.side == "in" for m in group.members)]
    assert read
    member = next(m for m in read[0].members if m.layer == grouped and m.side == "in")
    unread = 1
    layer = whole.get_submodule(grouped)
    width = layer.in_channels // layer.groups
    with torch.no_grad():
        for index in member.indices[unread]:
            made = layer.out_channels // layer.groups
            layer.weight[index // width * made : (index // width + 1) * made, index % width] = 0
    rng = np.random.default_rng(0)
    _, scores = scores_of(whole, shape=(3, 16, 16), given=[rng.normal(size=(8, 3, 16, 16)).astype(np.float32)])
    assert int(scores[read[0].name].argmin()) == unread
    assert float(scores[read[0].name].min()) < 1e-9


@pytest.mark.parametrize("name", ["Residual", "SqueezeExcite", "Concat", "Flattened", "Recurrent", "ShuffledTwice"])
def test_networks_of_every_shape(name: str) -> None:
    """Every group has a score for each channel, all finite, and some channel scores highest."""
    whole = fx.symbolic_trace(nets.initialise(getattr(nets, name)()).eval())
    rng = np.random.default_rng(0)
    shape = (3, 8, 8) if name in ("Flattened", "Recurrent") else (3, 16, 16)
    _, scores = scores_of(whole, 1e-3, shape, [rng.normal(size=(6, *shape)).astype(np.float32)])
    groups = find_groups(whole, shape)
    assert scores.keys() == {group.name for group in groups}
    for group in groups:
        assert scores[group.name].shape == (group.channels,)
        assert bool(torch.isfinite(scores[group.name]).all())
        assert float(scores[group.name].max()) > float(scores[group.name].min())


def test_without_equations_filters_decide() -> None:
    whole = fx.symbolic_trace(twins())
    groups = find_groups(whole, SHAPE)
    scores = obs_scores(whole, groups, {})
    assert all(torch.equal(scores[group.name], score_group(whole, group, fpgm)) for group in groups)


def test_inputs_that_are_always_zero_go_first() -> None:
    module = twins()
    with torch.no_grad():
        module.norm.weight[5] = 0.0
        module.norm.bias[5] = 0.0
    _, scores = scores_of(module, ridge=1e-3)
    assert int(scores["first"].argmin()) == 5


def test_by_name_scores_come_from_the_scan() -> None:
    whole, scores = scores_of(twins())
    group = next(group for group in find_groups(whole, SHAPE) if group.name == "first")
    stored = stored_scores(scores)
    assert torch.equal(channel_scores(whole, group, "obs", stored), scores["first"])
    assert torch.equal(channel_scores(whole, group, "fpgm", stored), score_group(whole, group, fpgm))
    for lacking in ({}, {"first": (1.0,)}):
        with pytest.raises(PlanError, match=r"^prune.criterion: obs ranks channels by images, and there is no score"):
            channel_scores(whole, group, "obs", lacking)


@pytest.mark.slow
def test_blocks_that_no_layer_reads_are_ranked_by_their_filters(tmp_path: Path) -> None:
    """Queries and keys of attention lie in one group with the values, which alone are read as sums of products."""
    case = next(
        case for case in ALL if case.name == "SVTR: attention, GELU, positions" and "TorchScript" in case.exporter
    )
    save_model(case.build(), tmp_path / "m.onnx")
    whole = to_torch(load_model(tmp_path / "m.onnx"))
    given = [np.random.default_rng(0).normal(size=(4, *case.shape)).astype(np.float32)]
    groups = find_groups(whole, case.shape)
    scores = obs_scores(whole, groups, reader_equations(whole, groups, given))
    partly = 0
    for group in groups:
        read = {c for member in group.members if member.side == "in" for c, at in enumerate(member.indices) if at}
        unread = sorted(set(range(group.channels)) - read)
        filters = score_group(whole, group, fpgm)
        assert torch.equal(scores[group.name][unread], filters[unread])
        if read and unread:
            partly += 1
            assert not torch.equal(scores[group.name][sorted(read)], filters[sorted(read)])
    assert partly


def test_a_reader_without_equations_leaves_its_channels_to_their_filters() -> None:
    whole = fx.symbolic_trace(twins())
    groups = find_groups(whole, SHAPE)
    equations = {name: found for name, found in reader_equations(whole, groups, images()).items() if name != "second"}
    first = next(group for group in groups if group.name == "first")
    assert torch.equal(obs_scores(whole, groups, equations)["first"], score_group(whole, first, fpgm))


@pytest.mark.parametrize("bad", [float("nan"), 1e30])
def test_values_that_overflow_say_nothing(bad: float) -> None:
    whole = fx.symbolic_trace(twins())
    given = images()
    given[0][0, 0, 0, 0] = bad
    _, scores = scores_of(whole, given=given)
    first = next(group for group in find_groups(whole, SHAPE) if group.name == "first")
    assert torch.equal(scores["first"], score_group(whole, first, fpgm))


class TwoReaders(nn.Module):
    """One layer reads a group and is heard; another reads nothing but zeros, or what never changes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.heard = nn.Conv2d(6, 4, 3)
        self.dead = nn.Conv2d(6, 4, 3, bias=False)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        read = torch.relu(self.first(x))
        return self.head(self.heard(read) + self.dead(read * 0.0))


def test_a_layer_that_reads_zeros_has_no_say() -> None:
    torch.manual_seed(0)
    module = TwoReaders().eval()
    _, scores = scores_of(module, ridge=1e-3)
    assert 0.5 < float(scores["first"].max()) < 1.5
    with torch.no_grad():
        module.dead.weight.mul_(1000.0)
    _, again = scores_of(module, ridge=1e-3)
    assert torch.equal(scores["first"], again["first"])
