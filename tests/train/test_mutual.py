"""Mutual learning: what each student learns, which one is kept, and that a stopped run ends the same."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.train import FeatureLoss, FitResult, Objective
from compress.train.mutual import NOISE, Pair, pair_objective, perturb
from tests.train import test_features as traced
from tests.train.test_fit import Batch, accuracy, batches, breaking_at, cross_entropy, fitted, same, scripted, weights

IMAGE = torch.zeros(1, 3, 6, 6)


def network() -> nn.Module:
    """With BatchNorm, and nothing that is random in training."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2), nn.Softmax(1)
    )


def entropy(outputs: Tensor, batch: Batch) -> Tensor:
    return nn.functional.nll_loss(outputs.log(), batch.targets)


def divergence(outputs: Tensor, wanted: Tensor) -> Tensor:
    return (wanted * (wanted.log() - outputs.log())).sum(dim=1).mean()


def train(pair: Pair, weight: float = 1.0, evaluate: Any = accuracy, **changes: Any) -> FitResult:
    objective = pair_objective(Objective(entropy, evaluate, divergence), divergence, weight)
    return fitted(pair, **vars(objective) | changes)


# --- the second student -------------------------------------------------------------------------------------------


def test_the_second_student_is_a_perturbed_copy_of_the_first() -> None:
    """Filters by noise in proportion to their size; biases and BatchNorm not at all."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.Conv2d(64, 64, 3))
    with torch.no_grad():
        module[2].weight[0] *= 100.0
    before = weights(module)
    pair = Pair(module, torch.zeros(1, 3, 8, 8), seed=0)
    assert pair.first is module
    assert same(weights(module), before)
    moved = {name: value - before[name] for name, value in pair.second.state_dict().items()}
    assert {name for name, value in moved.items() if value.any()} == {"0.weight", "2.weight"}
    for row in (0, 1):  # of 576 weights: the estimate's standard error is 3 %
        relative = moved["2.weight"][row].std() / before["2.weight"][row].square().mean().sqrt()
        assert relative.item() == pytest.approx(NOISE, rel=0.15)
    again = Pair(copy.deepcopy(module), torch.zeros(1, 3, 8, 8), seed=0)
    other = Pair(copy.deepcopy(module), torch.zeros(1, 3, 8, 8), seed=1)
    assert same(weights(again.second), weights(pair.second))
    assert not same(weights(other.second), weights(pair.second))


class TwoOutputs(nn.Module):
    """The second output has a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.first, self.second = nn.Conv2d(3, 4, 1), nn.LSTM(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        steps = self.shared(x).mean(dim=2).permute(2, 0, 1)
        return self.first(steps)[0], self.second(steps)


def test_what_is_not_trained_is_not_perturbed() -> None:
    module = TwoOutputs()
    before = weights(module)
    perturb(module, IMAGE, seed=0)
    moved = {name for name, value in weights(module).items() if not torch.equal(value, before[name])}
    assert moved == {"shared.weight", "first.weight_ih_l0", "first.weight_hh_l0"}
    assert Pair(TwoOutputs(), IMAGE, seed=0)(torch.rand(5, 3, 6, 6)).shape == (2, 6, 5, 2)


# --- what is learned ----------------------------------------------------------------------------------------------


def test_the_loss_and_its_gradients_by_hand() -> None:
    """Each student has the gradient of its own loss, and of its distance from the other, which is a constant to it."""
    single = Objective(lambda outputs, batch: (outputs * batch).sum(), accuracy, divergence)
    both = pair_objective(single, lambda outputs, wanted: (3 * outputs - wanted).square().sum(), weight=0.5)
    outputs = torch.tensor([[2.0], [5.0]], requires_grad=True)
    value = both.loss(outputs, torch.tensor([7.0]))
    value.backward()
    assert value.item() == 7 * 2 + 7 * 5 + 0.5 * ((6 - 5) ** 2 + (15 - 2) ** 2)
    assert outputs.grad is not None
    assert outputs.grad.flatten().tolist() == [7 + 0.5 * 2 * 3 * (6 - 5), 7 + 0.5 * 2 * 3 * (15 - 2)]
    one, other, teacher = torch.rand(3, 4, 2).softmax(2)
    torch.testing.assert_close(
        both.distillation_loss(torch.stack([one, other]), teacher),
        divergence(one, teacher) + divergence(other, teacher),
    )


@pytest.mark.parametrize("settings", [{}, {"average": 5}, {"optimizer": "sgd", "weight_decay": 0.1}])
def test_with_no_weight_each_student_learns_what_it_would_alone(settings: dict[str, Any]) -> None:
    teacher = network()
    torch.nn.init.normal_(teacher[4].weight)  # type: ignore[index]
    settings = {"teacher": teacher.eval(), "distill": 0.5, **settings}
    pair = Pair(network(), IMAGE, seed=0)
    singles = [copy.deepcopy(pair.first), copy.deepcopy(pair.second)]
    train(pair, weight=0.0, evaluate=scripted(0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3), **settings)
    for single, student in zip(singles, (pair.first, pair.second), strict=True):
        losses = {"loss": entropy, "distillation_loss": divergence}
        fitted(single, **losses, evaluate=scripted(0.0, 0.1, 0.2, 0.3), **settings)
        for name, value in single.state_dict().items():
            torch.testing.assert_close(student.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_students_come_nearer_to_each_other() -> None:
    def apart(weight: float) -> float:
        pair = Pair(network(), IMAGE, seed=0)
        perturb(pair.second, IMAGE, seed=1, noise=2.0)
        train(pair, weight, evaluate=scripted(*(0.1 * step for step in range(8))))
        with torch.no_grad():
            return float(torch.stack([(pair(b.images)[0] - pair(b.images)[1]).abs().mean() for b in batches(9)]).mean())

    assert apart(10.0) < 0.7 * apart(0.0)


def test_features_of_both_students_the_teacher_run_once() -> None:
    teacher, images = traced.net(), torch.randn(4, *traced.SHAPE)
    pair = Pair(traced.net(), images[:1], seed=0)
    features = FeatureLoss(teacher, weight=2.0)
    expected = []
    for student in (pair.first, pair.second):
        with features.watch(student) as watched:
            student(images)
        expected.append(watched.loss(images))
    calls: list[None] = []
    teacher.register_forward_hook(lambda *_: calls.append(None))
    both = pair_objective(Objective(cross_entropy, accuracy, divergence, features=features), divergence, 1.0).features
    assert both is not None
    with both.watch(pair) as watched_pair:
        pair(images)
    torch.testing.assert_close(watched_pair.loss(images), expected[0] + expected[1])
    assert expected[0] == 0
    assert expected[1] > 0
    assert len(calls) == 1


# --- which student is kept ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metrics", "second", "best"),
    [
        ((0.5, 0.4, 0.1, 0.2, 0.3, 0.4), False, 0.5),  # the start, unperturbed
        ((0.5, 0.4, 0.1, 0.6, 0.3, 0.4), True, 0.6),
        ((0.5, 0.4, 0.1, 0.6, 0.8, 0.7), False, 0.8),
        ((0.5, 0.4, 0.6, 0.6, 0.3, 0.4), False, 0.6),  # equal: the first student
    ],
)
def test_the_better_student_of_the_best_epoch_is_kept(metrics: tuple[float, ...], second: bool, best: float) -> None:
    """Scripted: two metrics for the start and each epoch, the first student's before the second's."""
    pair = Pair(network(), IMAGE, seed=0)
    seen: list[dict[str, Tensor]] = []
    values = iter(metrics)

    def evaluate(module: nn.Module) -> float:
        seen.append(weights(module))
        return next(values)

    result = train(pair, evaluate=evaluate, epochs=2, average=3)
    assert result.best_metric == best
    assert (pair.better() is pair.second) == second
    assert same(weights(pair.better()), seen[metrics.index(best)])


@pytest.mark.parametrize("settings", [{}, {"average": 4}, {"freeze_batch_norm": True}])
def test_stopped_and_resumed_equals_one_go(tmp_path: Path, settings: dict[str, Any]) -> None:
    whole = Pair(network(), IMAGE, seed=0)
    metrics = (0.1, 0.2, 0.3, 0.4, 0.4, 0.3, 0.5, 0.6)
    expected = train(whole, evaluate=scripted(*metrics), **settings)
    checkpoint = tmp_path / "a"
    stopped = Pair(network(), IMAGE, seed=0)
    with pytest.raises(KeyboardInterrupt):
        train(
            stopped,
            evaluate=scripted(*metrics),
            batches=breaking_at(3, 1, KeyboardInterrupt()),
            checkpoint=checkpoint,
            **settings,
        )
    for left in (metrics[6:], ()):  # the second time the checkpoint is of a finished training
        again = Pair(network(), IMAGE, seed=5)  # perturbed otherwise: the checkpoint holds both students
        found = train(again, evaluate=scripted(*left), checkpoint=checkpoint, **settings)
        assert found.history == expected.history == (0.2, 0.4, 0.4, 0.6)
        assert same(weights(again), weights(whole))
        assert again.better() is again.second
    norms = [pair[1].running_mean for pair in (whole.first, whole.second)]  # type: ignore[index]
    assert all(not norm.any() for norm in norms) == ("freeze_batch_norm" in settings)
