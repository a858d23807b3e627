"""Taking channels out: what is refused, and what a copy shares with its source (nothing)."""

import pytest
import torch
from torch import nn

from compress.errors import PlanError
from compress.prune.channels import remove_channels
from compress.prune.groups import find_groups
from tests.prune import nets

SHAPE = (3, 8, 8)


@pytest.fixture
def module() -> nn.Module:
    return nets.initialise(nets.SqueezeExcite())


def test_shapes_and_sizes_follow(module: nn.Module) -> None:
    pruned = remove_channels(module, find_groups(module, SHAPE), {"expand": [0, 3, 15], "se1": [2]})
    assert pruned.expand.weight.shape == (13, 8, 1, 1)
    assert pruned.expand.out_channels == 13
    assert pruned.depthwise.weight.shape == (13, 1, 5, 5)
    assert (pruned.depthwise.in_channels, pruned.depthwise.out_channels, pruned.depthwise.groups) == (13, 13, 13)
    assert pruned.bn2.num_features == pruned.bn2.running_var.numel() == pruned.bn2.weight.numel() == 13
    assert pruned.se1.weight.shape == (3, 13, 1, 1)
    assert pruned.se2.weight.shape == (13, 3, 1, 1)
    assert pruned.project.in_channels == 13


def test_the_kept_weights_are_the_right_ones(module: nn.Module) -> None:
    pruned = remove_channels(module, find_groups(module, SHAPE), {"expand": [0, 3, 15]})
    kept = [k for k in range(16) if k not in (0, 3, 15)]
    assert torch.equal(pruned.expand.weight, module.expand.weight[kept])
    assert torch.equal(pruned.project.weight, module.project.weight[:, kept])
    assert torch.equal(pruned.bn1.running_mean, module.bn1.running_mean[kept])


def test_the_source_is_untouched_and_the_copy_trains_alone(module: nn.Module) -> None:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    pruned = remove_channels(module, find_groups(module, SHAPE), {"expand": [1]})
    optimiser = torch.optim.SGD(pruned.parameters(), lr=0.1)
    pruned.train()(torch.randn(2, *SHAPE)).sum().backward()
    assert all(parameter.grad is not None for parameter in pruned.parameters())
    optimiser.step()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_frozen_parameters_stay_frozen(module: nn.Module) -> None:
    module.expand.requires_grad_(False)
    pruned = remove_channels(module, find_groups(module, SHAPE), {"expand": [1]})
    assert not pruned.expand.weight.requires_grad
    assert pruned.project.weight.requires_grad


def test_an_unknown_group_is_an_error(module: nn.Module) -> None:
    with pytest.raises(PlanError, match=r"channel group 'conv9': not in this model. Known groups: stem, expand, se1"):
        remove_channels(module, find_groups(module, SHAPE), {"conv9": [0]})


def test_a_channel_out_of_range_is_an_error(module: nn.Module) -> None:
    with pytest.raises(PlanError, match=r"channel group 'se1': no channel 4. It has channels 0 to 3"):
        remove_channels(module, find_groups(module, SHAPE), {"se1": [1, 4]})


def test_a_group_is_never_emptied(module: nn.Module) -> None:
    with pytest.raises(PlanError, match=r"channel group 'se1': all 4 channels removed. Keep at least one"):
        remove_channels(module, find_groups(module, SHAPE), {"se1": [0, 1, 2, 3]})
