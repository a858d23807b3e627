"""The training loop: what it learns, keeps, refuses, and that a stopped run goes on to the very same weights."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.artifacts import write_atomic
from compress.errors import ArtifactError, OutputError, TrainingError
from compress.export import check_parity, export_int8
from compress.quant import pacts, qat_parameter_groups
from compress.quant.int8_layers import QuantConv2d
from compress.train import Checkpoint, FitResult, FitSettings, Objective, TrainingData, fit
from compress.train.fit import memory_format
from compress.train.schedule import cosine_with_warmup
from compress.train.throughput import Throughput
from tests.quant import nets

STEPS = 4


@dataclass(frozen=True)
class Batch:
    """Images [N, 3, H, W] and their classes [N]."""

    images: Tensor
    targets: Tensor


def batches(epoch: int) -> Iterator[Batch]:
    """Four batches of noise, brighter in one of two classes; the same ones for the same epoch."""
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(STEPS):
        targets = torch.randint(0, 2, (8,), generator=generator)
        noise = torch.randn(8, 3, 6, 6, generator=generator)
        yield Batch(noise + targets[:, None, None, None] * 0.5, targets)


def cross_entropy(outputs: Tensor, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(outputs, batch.targets)


def accuracy(module: nn.Module) -> float:
    right = [(module(batch.images).argmax(1) == batch.targets).float().mean() for batch in batches(1000)]
    return float(torch.stack(right).mean())


def scripted(*metrics: float) -> Callable[[nn.Module], float]:
    """An evaluation that gives these metrics one after the other, the first to the untrained module."""
    left = iter(metrics)
    return lambda module: next(left)


def network() -> nn.Module:
    """With all that has a state or is random: BatchNorm and dropout."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(64, 2)
    )


def fitted(module: nn.Module, **given: Any) -> FitResult:
    """`fit` on noise, each part of it by the names of its fields."""
    parts = {
        kind: {one.name: given.pop(one.name) for one in fields(kind) if one.name in given}
        for kind in (TrainingData, Objective, FitSettings)
    }
    data = TrainingData(**{"batches": batches, "steps_per_epoch": STEPS, **parts[TrainingData]})  # type: ignore[arg-type]
    settings = FitSettings(**{"epochs": 3, "lr": 0.01, **parts[FitSettings]})
    name, checkpoint = given.pop("fingerprint", ""), given.pop("checkpoint", None)
    kept = Checkpoint(checkpoint, name) if checkpoint else None
    return fit(module, data, Objective(**parts[Objective]), settings, checkpoint=kept, **given)


def train(module: nn.Module, **changes: Any) -> FitResult:
    return fitted(module, **{"loss": cross_entropy, "evaluate": accuracy, **changes})


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- learning ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("optimizer", "lr"), [("adam", 0.01), ("sgd", 0.05)])
def test_learns(optimizer: str, lr: float) -> None:
    module = network()
    before = accuracy(module.eval())
    result = train(module, epochs=6, optimizer=optimizer, lr=lr)
    assert result.history[0] == before
    assert len(result.history) == 7
    assert result.best_metric == max(result.history) > before
    assert accuracy(module) == result.best_metric
    assert not module.training
    assert result.seconds > 0


class Ramp(nn.Module):
    """One weight whose loss gradient is 1, so that plain SGD moves it by the learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight


@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0])
def test_learning_rate_follows_the_schedule(warmup: float) -> None:
    module = Ramp()
    positions: list[float] = []

    def loss(outputs: Tensor, batch: Batch) -> Tensor:
        positions.append(float(module.weight.detach()))
        return outputs

    train(
        module,
        loss=loss,
        evaluate=scripted(0.0, 0.1, 0.2, 0.3),
        optimizer="sgd",
        momentum=0.0,
        lr=0.5,
        warmup_epochs=warmup,
    )
    moved = [
        before - after for before, after in zip(positions, [*positions[1:], float(module.weight.detach())], strict=True)
    ]
    expected = [0.5 * cosine_with_warmup(step, 3 * STEPS, round(warmup * STEPS)) for step in range(3 * STEPS)]
    assert moved == pytest.approx(expected, rel=1e-6)


class Bag(nn.Module):
    """Parameters of ones that the loss does not depend on: their gradient is 0."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.bag = nn.ParameterDict({name: nn.Parameter(torch.ones(2)) for name in names})

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([value.sum() for value in self.bag.values()]).sum() * 0.0


def test_groups_have_their_own_rate_and_decay() -> None:
    """Gradient 0: only decay moves a weight, by rate x decay x value in the first step of plain SGD."""
    module = Bag("a", "b", "c")
    groups = [
        {"params": [module.bag["a"]], "lr": 0.1, "weight_decay": 0.5},
        {"params": [module.bag["b"]], "lr": 0.2, "weight_decay": 0.5},
        {"params": [module.bag["c"]], "lr": 0.2, "weight_decay": 0.0},
    ]
    train(
        module,
        loss=lambda outputs, batch: outputs,
        evaluate=scripted(0.0, 1.0),
        batches=lambda epoch: list(batches(epoch))[:1],
        steps_per_epoch=1,
        epochs=1,
        optimizer="sgd",
        momentum=0.0,
        parameter_groups=groups,
    )
    for name, value in (("a", 0.95), ("b", 0.9), ("c", 1.0)):
        torch.testing.assert_close(module.bag[name].detach(), torch.full((2,), value))


def test_weight_decay_reaches_every_parameter() -> None:
    module = Bag("a")
    train(
        module,
        loss=lambda outputs, batch: outputs,
        evaluate=scripted(0.0, 1.0),
        batches=lambda epoch: list(batches(epoch))[:1],
        steps_per_epoch=1,
        epochs=1,
        lr=0.1,
        optimizer="sgd",
        momentum=0.0,
        weight_decay=0.3,
    )
    torch.testing.assert_close(module.bag["a"].detach(), torch.full((2,), 0.97))


def test_another_optimiser_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"optimizer: got 'lion'\. Use adam or sgd\."):
        train(network(), optimizer="lion")


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_batch_norm_keeps_its_statistics(freeze: bool) -> None:
    module = network()
    norm = module[1]  # type: ignore[index]
    before, scale = norm.running_mean.clone(), norm.weight.detach().clone()
    train(module, freeze_batch_norm=freeze, evaluate=scripted(0.0, 0.1, 0.2, 0.3))
    assert torch.equal(norm.running_mean, before) == freeze
    assert not torch.equal(norm.weight, scale)


def test_distillation_pulls_towards_the_teacher() -> None:
    """The task's own loss is nothing here; what is learned is the teacher's output."""
    torch.manual_seed(1)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(108, 2))

    @torch.no_grad()
    def distance(module: nn.Module) -> float:
        return float(torch.stack([(module(b.images) - teacher(b.images)).square().mean() for b in batches(7)]).mean())

    def train_with(distill: float) -> float:
        torch.manual_seed(0)
        student = nn.Sequential(nn.Flatten(), nn.Linear(108, 2))
        train(
            student,
            loss=lambda outputs, batch: outputs.sum() * 0.0,
            evaluate=lambda module: -distance(module),
            epochs=12,
            teacher=teacher,
            distillation_loss=lambda outputs, wanted: (outputs - wanted).square().mean(),
            distill=distill,
        )
        return distance(student)

    start = train_with(0.0)
    assert train_with(1.0) < 0.4 * start


def test_the_teacher_is_asked_without_gradients_and_only_if_it_counts() -> None:
    asked: list[bool] = []

    def teacher(images: Tensor) -> Tensor:
        asked.append(torch.is_grad_enabled())
        return torch.zeros(len(images), 2)

    options = {"teacher": teacher, "distillation_loss": lambda outputs, wanted: (outputs - wanted).square().mean()}
    train(network(), epochs=1, distill=0.5, **options)
    assert asked == [False] * STEPS
    train(network(), epochs=1, distill=0.0, **options)
    assert len(asked) == STEPS


# --- what is kept -----------------------------------------------------------------------------------------------


def after_each_epoch(epochs: int) -> list[dict[str, Tensor]]:
    """Weights as they are when each epoch is scored, the untrained ones first."""
    seen: list[dict[str, Tensor]] = []

    def evaluate(module: nn.Module) -> float:
        assert not module.training
        assert not torch.is_grad_enabled()
        seen.append(weights(module))
        return float(len(seen))

    train(network(), epochs=epochs, evaluate=evaluate)
    return seen


@pytest.mark.parametrize(
    ("metrics", "best"),
    [
        ((0.1, 0.2, 0.3, 0.4), 3),
        ((0.1, 0.6, 0.5, 0.4), 1),
        ((0.9, 0.2, 0.8, 0.4), 0),
        ((0.5, 0.7, 0.7, 0.6), 1),
        ((0.5, 0.5, 0.5, 0.5), 0),
    ],
)
def test_the_best_epoch_is_kept_the_start_and_the_first_of_equals_included(
    metrics: tuple[float, ...], best: int
) -> None:
    module = network()
    result = train(module, evaluate=scripted(*metrics))
    assert (result.best_epoch, result.best_metric) == (best, metrics[best])
    assert result.history == metrics
    assert same(weights(module), after_each_epoch(3)[best])


def test_the_last_epoch_is_kept_where_that_is_asked_for_also_after_a_stop(tmp_path: Path) -> None:
    """From scratch the metric can stay at zero while the loss falls: the untrained start must not win."""
    module = network()
    train(module, evaluate=scripted(0.0, 0.0, 0.0, 0.0), keep_best=False)
    assert same(weights(module), after_each_epoch(3)[3])
    for _ in range(2):  # the second time it only reads the checkpoint
        again = network()
        train(again, evaluate=scripted(0.0, 0.0, 0.0, 0.0), keep_best=False, checkpoint=tmp_path / "c")
        assert same(weights(again), weights(module))


def test_averaged_weights_are_scored_and_kept() -> None:
    """kept += (1 - decay) * (new - kept) after each step, decay the smaller of 1 - 1/steps and (1 + n) / (10 + n)."""
    module, seen = nn.Sequential(nn.Flatten(), nn.Linear(108, 2)), []
    torch.manual_seed(0)
    kept = weights(module)

    def loss(outputs: Tensor, batch: Batch) -> Tensor:
        seen.append(weights(module))  # before each step: after the one before
        return cross_entropy(outputs, batch)

    scored = []
    result = train(module, loss=loss, average=3, evaluate=lambda network: scored.append(weights(network)) or 0.1)
    result_steps = 3 * STEPS
    assert len(seen) == result_steps
    after = {}
    for number, trained in enumerate(seen[1:]):
        decay = min(1 - 1 / 3, (1 + number) / (10 + number))
        kept = {name: decay * kept[name] + (1 - decay) * trained[name] for name in kept}
        after[number + 1] = kept
    for epoch in (1, 2):
        for name, value in after[epoch * STEPS].items():
            torch.testing.assert_close(scored[epoch][name], value, rtol=1e-4, atol=1e-6)
    assert result.best_epoch == 0  # all score 0.1: the start is kept
    assert same(weights(module), seen[0])


@pytest.mark.parametrize("keep_best", [True, False])
def test_averaging_goes_on_after_a_stop_to_the_same_weights(tmp_path: Path, keep_best: bool) -> None:
    whole, checkpoint = network(), tmp_path / "a.checkpoint"
    expected = train(whole, average=5, keep_best=keep_best)
    plain = network()
    assert train(plain).history != expected.history or not same(weights(plain), weights(whole))
    with pytest.raises(KeyboardInterrupt):
        train(network(), average=5, batches=breaking_at(2, 1, KeyboardInterrupt()), checkpoint=checkpoint)
    again = network()
    found = train(again, average=5, keep_best=keep_best, checkpoint=checkpoint)
    assert found.history == expected.history
    assert same(weights(again), weights(whole))


def test_no_epochs_only_score() -> None:
    module = network()
    before = weights(module)
    result = train(module, epochs=0)
    assert result.history == (result.best_metric,)
    assert result.best_epoch == 0
    assert same(weights(module), before)


def test_seeds() -> None:
    """Dropout is drawn from the seed, whatever was drawn before."""
    runs = []
    for seed, drawn_before in ((3, 0), (3, 17), (4, 0)):
        module = network()
        torch.rand(drawn_before)
        train(module, seed=seed, evaluate=scripted(0.0, 0.1, 0.2, 0.3))
        runs.append(weights(module))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_progress() -> None:
    calls: list[tuple[int, int, str]] = []
    train(network(), epochs=2, on_progress=lambda *call: calls.append(call))
    assert [call[:2] for call in calls] == [(done, 8) for done in range(1, 9)]
    assert calls[-1][2].startswith("epoch 2/2 loss ")


# --- trouble ----------------------------------------------------------------------------------------------------


def breaking_at(epoch: int, step: int, error: BaseException | None) -> Callable[[int], Iterator[Batch]]:
    """The usual batches, but one of them is NaN, or raises."""

    def made(asked: int) -> Iterator[Batch]:
        for index, batch in enumerate(batches(asked)):
            if (asked, index) == (epoch, step):
                if error is not None:
                    raise error
                yield Batch(batch.images * float("nan"), batch.targets)
            else:
                yield batch

    return made


def test_nan_stops_with_what_to_do_and_the_last_epoch_stays(tmp_path: Path) -> None:
    checkpoint = tmp_path / "a.checkpoint"
    module = network()
    train(module, checkpoint=checkpoint, epochs=1, fingerprint="f")
    kept = checkpoint.read_bytes()
    with pytest.raises(
        TrainingError,
        match=r"loss is nan in epoch 2, step 3 \(learning rate .*\)\. Lower lr \(now 0\.01\) or lengthen warmup",
    ):
        train(network(), batches=breaking_at(2, 2, None), checkpoint=checkpoint, fingerprint="f")
    assert checkpoint.read_bytes() == kept
    assert all(value.isfinite().all() for value in torch.load(checkpoint, weights_only=True)["weights"].values())


def test_a_step_on_nan_is_not_taken() -> None:
    module = network()
    with pytest.raises(TrainingError, match="loss is nan in epoch 1, step 1 "):
        train(module, batches=breaking_at(1, 0, None), evaluate=scripted(0.0))
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_too_high_a_rate_is_noticed_in_quantised_networks_too() -> None:
    """Rounded to integers, broken weights would look sound; they must come out in the loss."""
    module = nets.prepared("plain")
    next(layer for layer in module.modules() if isinstance(layer, QuantConv2d)).weight.data.fill_(float("nan"))
    images = nets.images()
    with pytest.raises(TrainingError, match="loss is nan in epoch 1, step 1 "):
        train(
            module,
            batches=lambda epoch: [Batch(images, torch.zeros(len(images), dtype=torch.int64))],
            steps_per_epoch=1,
            evaluate=scripted(0.0),
        )


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("from the data")])
def test_errors_pass_through_and_leave_the_last_epoch(tmp_path: Path, error: BaseException) -> None:
    checkpoint = tmp_path / "a.checkpoint"
    with pytest.raises(type(error)):
        train(network(), batches=breaking_at(3, 1, error), checkpoint=checkpoint)
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 2


# --- going on ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("stopped", [(1, 0), (1, 2), (2, 0), (3, 3)])
def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path, optimizer: str, stopped: tuple[int, int]) -> None:
    whole = network()
    expected = train(whole, optimizer=optimizer, warmup_epochs=1.0)

    checkpoint, module = tmp_path / "a.checkpoint", network()
    with pytest.raises(KeyboardInterrupt):
        train(
            module,
            optimizer=optimizer,
            warmup_epochs=1.0,
            batches=breaking_at(*stopped, KeyboardInterrupt()),
            checkpoint=checkpoint,
        )
    again = network()
    found = train(again, optimizer=optimizer, warmup_epochs=1.0, checkpoint=checkpoint)
    assert same(weights(again), weights(whole))
    assert (found.best_metric, found.best_epoch, found.history) == (
        expected.best_metric,
        expected.best_epoch,
        expected.history,
    )


def test_stopped_after_every_epoch(tmp_path: Path) -> None:
    whole = network()
    train(whole, epochs=4)
    checkpoint = tmp_path / "a.checkpoint"
    for epoch in (2, 3, 4):
        with pytest.raises(KeyboardInterrupt):
            train(network(), epochs=4, batches=breaking_at(epoch, 0, KeyboardInterrupt()), checkpoint=checkpoint)
    module = network()
    train(module, epochs=4, checkpoint=checkpoint)
    assert same(weights(module), weights(whole))


def test_a_finished_run_is_not_done_again(tmp_path: Path) -> None:
    checkpoint, module = tmp_path / "a.checkpoint", network()
    first = train(module, checkpoint=checkpoint)
    again = network()
    second = train(again, checkpoint=checkpoint, batches=breaking_at(1, 0, ValueError()), evaluate=scripted())
    assert same(weights(again), weights(module))
    assert (second.history, second.best_epoch) == (first.history, first.best_epoch)


def test_quantised_training_goes_on_to_the_same_ranges(tmp_path: Path) -> None:
    """Thresholds are parameters like others: stopped and gone on, they end the same, and so does the file."""

    def quantised(checkpoint: Path | None, error: BaseException | None) -> nn.Module:
        module = nets.prepared("mobile")
        groups = qat_parameter_groups(module, lr=1e-3, weight_decay=0.0, l2=1e-3, lr_multiplier=10.0)

        def some(epoch: int) -> Iterator[Batch]:
            for step in range(2):
                if error is not None and (epoch, step) == (2, 1):
                    raise error
                yield Batch(nets.images(4, seed=10 * epoch + step), torch.arange(4) % 3)

        objective = Objective(
            lambda outputs, batch: -outputs.gather(1, batch.targets[:, None]).log().mean(),
            scripted(*(0.1, 0.2, 0.3)[0 if checkpoint is None or error is not None else 2 :]),
        )
        fit(
            module,
            TrainingData(some, 2),
            objective,
            FitSettings(epochs=2, lr=1e-3),
            parameter_groups=groups,
            checkpoint=Checkpoint(checkpoint, "") if checkpoint else None,
        )
        return module

    before = {name: pact.alpha.detach().clone() for name, pact in pacts(nets.prepared("mobile"))}
    whole = quantised(None, None)
    with pytest.raises(KeyboardInterrupt):
        quantised(tmp_path / "c", KeyboardInterrupt())
    again = quantised(tmp_path / "c", None)
    assert same(weights(again), weights(whole))
    moved = [not torch.equal(before[name], pact.alpha) for name, pact in pacts(whole) if not pact.fixed]
    assert all(moved)
    exported = export_int8(again, nets.template("mobile"))  # type: ignore[arg-type]
    assert check_parity(again, exported, nets.images(seed=9).numpy()).max_steps <= 1.01  # type: ignore[arg-type]


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "a.checkpoint"
    train(network(), checkpoint=checkpoint, epochs=1, fingerprint="one")
    with pytest.raises(ArtifactError, match=r"a\.checkpoint: stale: .*fingerprint one, now two\)\. Delete it"):
        train(network(), checkpoint=checkpoint, fingerprint="two")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes | None) -> None:
    checkpoint = tmp_path / "a.checkpoint"
    train(network(), checkpoint=checkpoint, epochs=1)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-200] if content is None else content)
    before = network()
    module = copy.deepcopy(before)
    with pytest.raises(
        ArtifactError, match=r"a\.checkpoint: not a usable checkpoint \(.*\)\. Delete it to train again"
    ):
        train(module, checkpoint=checkpoint)
    assert same(weights(module), weights(before))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "a.checkpoint"
    train(network(), checkpoint=checkpoint, epochs=1)
    with pytest.raises(ArtifactError, match="not a usable checkpoint"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(108, 2)), checkpoint=checkpoint)


def test_a_checkpoint_holds_no_code(tmp_path: Path) -> None:
    """Never unpickled: a file that would run code when read is refused."""
    checkpoint = tmp_path / "a.checkpoint"
    torch.save({"fingerprint": Path("x")}, checkpoint)
    with pytest.raises(ArtifactError, match="not a usable checkpoint"):
        train(network(), checkpoint=checkpoint)


def test_a_checkpoint_that_cannot_be_written(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"")
    with pytest.raises(OutputError, match="cannot be written"):
        train(network(), checkpoint=tmp_path / "file" / "a.checkpoint")


@pytest.mark.parametrize(
    ("channels", "stride", "last"), [(8, 2, False), (15, (1, 2), False), (16, 2, True), (8, 1, True)]
)
def test_a_strided_1x1_convolution_of_few_channels_does_not_crash(channels: int, stride: Any, last: bool) -> None:
    """PyTorch 2.13 crashes in its backward pass, channels last."""
    module = nn.Sequential(nn.Conv2d(3, channels, 3), nn.Conv2d(channels, 16, 1, stride))
    assert (memory_format(module) == torch.channels_last) == last
    images = torch.randn(8, 3, 66, 66, generator=torch.Generator().manual_seed(0))
    batches = [Batch(images, None)] * 10
    objective = Objective(lambda outputs, _: outputs.square().mean(), lambda _: 0.0)
    fit(module, TrainingData(lambda _: batches, 10), objective, FitSettings(epochs=1, lr=1e-3))


# --- precision, memory, speed -----------------------------------------------------------------------------------------


def test_learns_in_bf16() -> None:
    module = network()
    before = accuracy(module.eval())
    seen: list[torch.dtype] = []
    module[0].register_forward_hook(lambda _, given, made: seen.append(made.dtype))
    result = train(module, epochs=6, precision="bf16", loss=checked_float32)
    assert result.best_metric > before
    assert torch.bfloat16 in seen
    assert all(value.dtype != torch.bfloat16 for value in module.state_dict().values())


def checked_float32(outputs: Tensor, batch: Batch) -> Tensor:
    assert outputs.dtype == torch.float32
    return cross_entropy(outputs, batch)


def test_scaled_gradients_resume(tmp_path: Path) -> None:
    """In fp16 the scale of the loss is part of the checkpoint."""
    whole, halves = network(), network()
    train(whole, epochs=2, precision="fp16", keep_best=False)
    with pytest.raises(KeyboardInterrupt):
        train(halves, epochs=2, precision="fp16", keep_best=False, checkpoint=tmp_path / "c", evaluate=stop_at(2))
    train(halves, epochs=2, precision="fp16", keep_best=False, checkpoint=tmp_path / "c")
    assert "scaler" in torch.load(tmp_path / "c")
    assert same(weights(whole), weights(halves))


def stop_at(count: int) -> Callable[[nn.Module], float]:
    """An evaluation that stops a training when it is called for the count-th time."""
    calls = iter(range(1, count + 2))

    def evaluate(module: nn.Module) -> float:
        if next(calls) > count:
            raise KeyboardInterrupt
        return 0.0

    return evaluate


def test_a_batch_that_is_too_large() -> None:
    module = network()
    module.register_forward_pre_hook(lambda _, given: refuse(len(given[0]) > 3))
    with pytest.raises(
        TrainingError, match=r"batch_size: out of memory on cpu with 8 images of 6 x 6 in a batch; 2 pass"
    ):
        train(module, evaluate=scripted(0.0))
    module.register_forward_pre_hook(lambda _, given: refuse(True))
    with pytest.raises(TrainingError, match=r"not even one passes through the network. Use smaller images"):
        train(module, evaluate=scripted(0.0))


def refuse(too_large: bool) -> None:
    if too_large:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


def test_speed_is_told() -> None:
    lines: list[str] = []
    result = train(network(), on_progress=lambda done, total, message: lines.append(message))
    assert all(line.endswith(" images/s") for line in lines)
    assert result.images_per_second > 0
    assert train(network(), epochs=0).images_per_second == 0.0


def test_throughput_leaves_out_what_is_between_epochs() -> None:
    now = iter([0.0, 10.0, 12.0, 14.0, 100.0, 101.0])
    seen = Throughput(clock=lambda: next(now))
    seen.start_epoch()
    seen.add(8)
    seen.add(8)
    assert seen.of_epoch() == 4.0  # 16 images in 4 s
    seen.start_epoch()
    seen.add(9)
    assert (seen.of_epoch(), seen.of_all()) == (9.0, 5.0)  # 25 images in 5 s
