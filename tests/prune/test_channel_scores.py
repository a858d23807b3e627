"""Scores of groups: by the criterion in each layer, averaged."""

import torch
from torch import nn

from compress.prune.channel_scores import _filters, lowest_channels, removal_count, score_group
from compress.prune.channels import ChannelGroup, Member
from compress.prune.groups import find_groups
from compress.prune.importance import fpgm, l1
from tests.prune import nets

SHAPE = (3, 8, 8)


def scores_of(module: nn.Module, name: str) -> torch.Tensor:
    groups = {group.name: group for group in find_groups(module, SHAPE)}
    return score_group(module, groups[name], fpgm)


def test_one_layer_is_ranked_as_the_criterion_ranks_it() -> None:
    module = nets.initialise(nets.Plain())
    expected = fpgm(module.conv1.weight)
    torch.testing.assert_close(scores_of(module, "conv1"), (expected / expected.mean()).double(), rtol=1e-5, atol=0.0)


def test_added_layers_count_alike_whatever_the_size_of_their_weights() -> None:
    module = nets.initialise(nets.Residual())
    before = scores_of(module, "stem")
    with torch.no_grad():
        module.block2.weight.mul_(100.0)
    torch.testing.assert_close(scores_of(module, "stem"), before, rtol=1e-5, atol=0.0)
    layers = [fpgm(layer.weight).double() for layer in (module.stem, module.block1, module.block2)]
    expected = sum(scores / scores.mean() for scores in layers) / 3
    torch.testing.assert_close(before, expected, rtol=1e-5, atol=0.0)


def test_transposed_and_depthwise_filters_are_those_of_the_output_channels() -> None:
    module = nets.initialise(nets.Concat())
    expected = fpgm(module.up.weight.transpose(0, 1))
    torch.testing.assert_close(scores_of(module, "up"), (expected / expected.mean()).double(), rtol=1e-5, atol=0.0)
    module = nets.initialise(nets.SqueezeExcite())
    layers = [fpgm(layer.weight).double() for layer in (module.expand, module.depthwise, module.se2)]
    expected = sum(scores / scores.mean() for scores in layers) / 3
    torch.testing.assert_close(scores_of(module, "expand"), expected, rtol=1e-5, atol=0.0)


def test_equal_filters_give_equal_finite_scores() -> None:
    module = nets.initialise(nets.Plain())
    nn.init.constant_(module.conv1.weight, 0.5)
    assert scores_of(module, "conv1").tolist() == [0.0] * 6
    groups = find_groups(module, SHAPE)
    assert torch.isfinite(score_group(module, groups[0], l1)).all()


def group_of(channels: int, **parts: list[int]) -> ChannelGroup:
    """A group with one layer per part, which holds those of the group's channels."""
    members = tuple(
        Member(name, "out", tuple((part.index(channel),) if channel in part else () for channel in range(channels)))
        for name, part in parts.items()
    )
    return ChannelGroup("root", channels, tuple(parts), members)


def test_the_lowest_go_first_and_ties_in_order() -> None:
    group = group_of(4, root=[0, 1, 2, 3])
    assert lowest_channels(group, torch.tensor([2.0, 1.0, 1.0, 1.0]), 2) == (1, 2)
    assert lowest_channels(group, torch.tensor([2.0, 1.0, 3.0, 4.0]), 0) == ()


def test_a_layer_that_holds_a_part_of_a_group_keeps_its_best_channel() -> None:
    group = group_of(4, root=[0, 1, 2, 3], first=[0, 1], second=[2, 3])
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert lowest_channels(group, scores, 2) == (0, 2)
    assert lowest_channels(group, scores, 3) == (0, 2)


def test_counts_round_as_paddleslim_and_leave_one() -> None:
    assert [removal_count(10, ratio) for ratio in (0.0, 0.04, 0.06, 0.99)] == [0, 0, 1, 9]
    assert removal_count(1, 0.9) == 0


def test_filters_of_a_transposed_convolution_in_groups() -> None:
    """Its weight is [inputs, outputs / groups]: channel 5 of 8 in two groups is the second of the second group."""
    layer = nn.ConvTranspose2d(6, 8, 2, groups=2)
    member = Member("layer", "out", tuple((channel,) for channel in range(8)))
    filters = _filters(layer, member, list(range(8)))
    assert torch.equal(filters[5], layer.weight[3:6, 1].flatten())
    assert torch.equal(filters[2], layer.weight[0:3, 2].flatten())
