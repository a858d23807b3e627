"""Feature distillation: which layers, what distance, and that it teaches."""

import copy

import pytest
import torch
from torch import Tensor, fx, nn

from compress.errors import TrainingError
from compress.prune.channels import kept_outputs, remove_channels
from compress.prune.groups import find_groups
from compress.train.features import FeatureLoss, feature_layers

SHAPE = (3, 8, 8)


class Net(nn.Module):
    """A block that widens, filters by channel and narrows again, then steps that an LSTM reads."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.norm = nn.Conv2d(3, 12, 1), nn.BatchNorm2d(12)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.project, self.after = nn.Conv2d(12, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.recurrent = nn.LSTM(6, 4)
        self.head = nn.Linear(4, 9)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.expand(x)))
        x = self.after(self.project(self.depthwise(x)))
        steps = x.mean(dim=2).permute(2, 0, 1)
        return self.head(self.recurrent(steps)[0])


def net() -> fx.GraphModule:
    torch.manual_seed(0)
    return fx.symbolic_trace(Net().eval())


def test_layers_that_narrow_by_the_batch_norm_behind_them() -> None:
    assert feature_layers(net()) == {"project": "after", "recurrent": "recurrent"}


def test_a_network_is_at_no_distance_from_itself() -> None:
    module, images = net(), torch.randn(4, *SHAPE)
    loss = FeatureLoss(copy.deepcopy(module))
    loss.check(module)
    with loss.watch(module) as watched:
        module(images)
    assert watched.loss(images) == 0


def test_the_distance_by_hand() -> None:
    """Half of the outputs doubled: their squares over the variance of all; the mean of two layers."""
    teacher = net()
    student, images = copy.deepcopy(teacher), torch.randn(4, *SHAPE)
    with torch.no_grad():
        student.after.weight[:3] *= 2.0
        student.after.bias[:3] *= 2.0
        seen: dict[str, Tensor] = {}
        for module, name in ((teacher, "teacher"), (student, "student")):
            x = torch.relu(module.norm(module.expand(images)))
            block = module.after(module.project(module.depthwise(x)))
            seen[f"{name} block"] = block
            seen[f"{name} steps"] = module.recurrent(block.mean(dim=2).permute(2, 0, 1))[0]
        terms = [
            (seen[f"student {part}"] - seen[f"teacher {part}"]).square().mean() / seen[f"teacher {part}"].var()
            for part in ("block", "steps")
        ]
    loss = FeatureLoss(teacher, weight=3.0)
    with loss.watch(student) as watched:
        student(images)
    torch.testing.assert_close(watched.loss(images), 3.0 * sum(terms) / 2)


def test_a_layer_that_says_nothing_is_left_out() -> None:
    """PP-OCR's recogniser has one: of two dead channels. Over no variance the least change of it would be infinite."""
    teacher, images = net(), torch.randn(4, *SHAPE)
    with torch.no_grad():
        teacher.after.weight.zero_()
        teacher.after.bias.fill_(0.5)
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student.after.weight.fill_(1.0)
        student.recurrent.weight_ih_l0.mul_(2.0)
    loss = FeatureLoss(teacher)
    with loss.watch(student) as watched:
        student(images)
    assert 0 < watched.loss(images) < 100


def test_a_pruned_network_is_compared_on_the_channels_that_it_has() -> None:
    teacher, images = net(), torch.randn(4, *SHAPE)
    groups = find_groups(teacher, SHAPE)
    removed = {"project": [1, 4], "recurrent": [0]}
    student = remove_channels(teacher, groups, removed)
    loss = FeatureLoss(teacher, kept=kept_outputs(teacher, groups, removed))
    loss.check(student)
    wanted = loss.wanted(images)
    whole = FeatureLoss(teacher).wanted(images)
    torch.testing.assert_close(wanted["after"], whole["after"][:, [0, 2, 3, 5]])
    torch.testing.assert_close(wanted["recurrent"], whole["recurrent"][..., 1:])
    with pytest.raises(
        TrainingError, match=r"^features: layer 'after' has 4 channels, and 6 of the teacher's would be"
    ):
        FeatureLoss(teacher).check(student)


def test_it_teaches_without_labels_and_leaves_the_teacher_alone() -> None:
    teacher = net()
    before = copy.deepcopy(teacher.state_dict())
    groups = find_groups(teacher, SHAPE)
    removed = {"expand": [0, 1, 2, 3]}
    student = remove_channels(teacher, groups, removed)
    loss = FeatureLoss(teacher, kept=kept_outputs(teacher, groups, removed))
    tuner = torch.optim.Adam(student.parameters(), lr=0.01)
    values = []
    for step in range(60):
        images = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(step))
        with loss.watch(student) as watched:
            student(images)
        value = watched.loss(images)
        tuner.zero_grad()
        value.backward()
        tuner.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.3 * values[0]
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not student.after._forward_hooks, "nothing is left behind"
