"""Readers of pruned channels, solved anew from sums over whole inputs: as good as solving on the rows themselves."""

import pytest
import torch
from torch import fx, nn

from compress.prune.channels import ChannelGroup, remove_channels
from compress.prune.compensation import Compensation, reader_equations
from compress.prune.groups import find_groups
from compress.prune.reconstruct import RIDGE
from tests.prune import nets
from tests.prune.test_reconstruct import SHAPE, Reader, error, images, twins


def prepared(
    module: nn.Module, ridge: float = RIDGE, **settings: int
) -> tuple[fx.GraphModule, dict[str, ChannelGroup], Compensation]:
    whole = fx.symbolic_trace(module)
    groups = find_groups(whole, SHAPE)
    equations = reader_equations(whole, groups, images(), **settings)
    return whole, {group.name: group for group in groups}, Compensation(whole, equations, ridge=ridge)


def test_channels_that_others_can_replace_are_not_missed() -> None:
    whole, groups, compensate = prepared(twins(), ridge=1e-9)
    pruned = remove_channels(whole, list(groups.values()), {"first": [4, 5, 6, 7]})
    before = error(pruned, whole)
    compensate(pruned, groups["first"], [4, 5, 6, 7])
    assert error(pruned, whole) < 1e-6 < 0.1 < before


def test_it_is_the_least_squares_solution_on_the_rows_that_are_left() -> None:
    """Against torch.linalg.lstsq of the reader's outputs on the inputs that it still has."""
    whole, groups, compensate = prepared(twins(), ridge=1e-12, positions=10**6)
    removed = [0, 2, 5]
    pruned = remove_channels(whole, list(groups.values()), {"first": removed})
    compensate(pruned, groups["first"], removed)
    kept = [channel for channel in range(8) if channel not in removed]
    with torch.no_grad():
        x = whole.pool(whole.norm(whole.first(torch.from_numpy(images()[0]))))
        both = torch.cat([x, whole.pool(whole.norm(whole.first(torch.from_numpy(images()[1]))))])
        patches = nn.functional.unfold(both[:, kept], 3).transpose(1, 2).flatten(0, 1)  # [rows, 5 * 9]
        rows = torch.cat([patches, torch.ones(len(patches), 1)], dim=1).double()
        wanted = whole.second(both).flatten(2).transpose(1, 2).flatten(0, 1).double()
        solution = torch.linalg.lstsq(rows, wanted, driver="gelsd").solution
        found = torch.cat(
            [pruned.second.weight.flatten(1).T, (whole.after.running_mean - pruned.after.running_mean)[None]]
        )
        residuals = [((rows @ weights.double() - wanted) ** 2).sum() for weights in (found, solution)]
    assert float(residuals[0]) == pytest.approx(float(residuals[1]), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("group", ["recurrent", "conv"])
def test_hidden_units_and_inputs_of_a_recurrent_layer(kind: type[nn.RNNBase], group: str) -> None:
    torch.manual_seed(0)
    whole, groups, compensate = prepared(Reader(kind).eval())
    removed = [0, 1, 6, 7] if group == "recurrent" else [0, 1]
    pruned = remove_channels(whole, list(groups.values()), {group: removed})
    before = error(pruned, whole)
    compensate(pruned, groups[group], removed)
    assert error(pruned, whole) < 0.9 * before


@pytest.mark.parametrize("name", ["SqueezeExcite", "Residual", "Concat", "Flattened"])
def test_networks_of_every_shape_come_nearer(name: str) -> None:
    module = nets.initialise(getattr(nets, name)()).eval()
    whole, groups, compensate = prepared(module)
    errors = []
    for group in groups.values():
        removed = list(range(group.channels // 4))
        pruned = remove_channels(whole, list(groups.values()), {group.name: removed})
        before = error(pruned, whole)
        compensate(pruned, group, removed)
        errors.append((error(pruned, whole), before))
    assert sum(after for after, _ in errors) < sum(before for _, before in errors)
