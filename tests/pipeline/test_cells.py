"""Cells that compute only what pruning reaches: the very outputs of the whole pruned network."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import fx, nn

from compress.errors import DataError
from compress.graph import from_torch, load_model, to_onnx, to_torch
from compress.graph.canonical import canonicalise
from compress.measure.session import Session
from compress.pipeline.evaluation import score_model
from compress.pipeline.models import as_graph_module
from compress.pipeline.scanning.cells import Cells
from compress.prune.channel_scores import group_removal_count, lowest_channels, score_group
from compress.prune.channels import ChannelGroup, remove_channels
from compress.prune.compensation import Compensation, reader_equations
from compress.prune.groups import find_groups
from compress.prune.importance import CRITERIA
from compress.prune.sensitivity import ScanRequest, by_pruned_copies, scan_sensitivity
from compress.zoo import shipped
from tests.hard_cases.torch_cases import script
from tests.pipeline import stepping, tiny
from tests.prune import coupled_nets, nets

ZOO = {"direction_classifier": (3, 48, 192), "text_recogniser": (3, 32, 160), "text_detector": (3, 160, 160)}


def batches(shape: tuple[int, ...], count: int = 2) -> list[np.ndarray]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count - place, *shape, generator=generator).numpy() for place in range(2)]


def removed_at(module: nn.Module, group: ChannelGroup, ratio: float) -> tuple[int, ...]:
    return lowest_channels(group, score_group(module, group, CRITERIA["fpgm"]), group_removal_count(group, ratio))


def whole(module: fx.GraphModule, model: onnx.ModelProto, group: ChannelGroup, removed: tuple[int, ...]) -> Session:
    return Session(to_onnx(as_graph_module(remove_channels(module, [group], {group.name: removed})), model))


def check_cells(
    model: onnx.ModelProto, shape: tuple[int, int, int], ratios: tuple[float, ...] = (0.3, 0.6), step: int = 1
) -> float:
    """Compare cells of every `step`-th group to the last bit; returns the share of groups whose cells ran as a part."""
    module = to_torch(model)
    groups = find_groups(module, shape)[::step]
    cells, images, parts = Cells(module, model, groups), batches(shape), 0
    original = cells.original()
    assert all(np.array_equal(original(batch), Session(model).run(batch)) for batch in images)
    for group in groups:
        for ratio in ratios:
            removed = removed_at(module, group, ratio)
            expected = whole(module, model, group, removed)
            found = cells.predictor(group, cells.pruned_layers(group, removed))
            for batch in images:
                np.testing.assert_array_equal(found(batch), expected.run(batch), err_msg=f"{group.name} at {ratio}")
        parts += any(cells.cuts(group).values())
    return parts / len(groups)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "direction_classifier",
        pytest.param("text_recogniser", marks=pytest.mark.slow),
        pytest.param("text_detector", marks=pytest.mark.slow),
    ],
)
def test_the_models_that_ship(name: str) -> None:
    """All but the groups of the first layers, which everything depends on, run as a part."""
    assert check_cells(load_model(shipped(name)), ZOO[name], (0.5,), step=3) >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [nets.Plain, nets.Residual, nets.SqueezeExcite, nets.Concat, nets.Grouped, nets.WithConstants]
)
def test_networks_of_every_kind_of_coupling(kind: type[nn.Module]) -> None:
    shape = (3, 16, 16)
    check_cells(from_torch(nets.initialise(kind()), torch.zeros(1, *shape)), shape)


@pytest.mark.slow
@pytest.mark.parametrize("make", [coupled_nets.Attended, coupled_nets.Sliced, coupled_nets.shufflenet_v1])
def test_networks_whose_sizes_follow(make: Callable[[], nn.Module]) -> None:
    shape = (3, 32, 64)
    assert check_cells(canonicalise(script(make(), shape)), shape) >= 0.5


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(nets.drawn_networks())
def test_random_networks(module: nn.Module) -> None:
    check_cells(from_torch(module, torch.zeros(1, 3, 8, 8)), (3, 8, 8))


@pytest.mark.parametrize("memory", [0, 3000])
def test_with_little_memory(memory: int) -> None:
    """What does not fit is computed again; without any, whole networks run."""
    model = from_torch(nets.initialise(nets.SqueezeExcite()), torch.zeros(1, 3, 16, 16))
    module = to_torch(model)
    groups = find_groups(module, (3, 16, 16))
    cells = Cells(module, model, groups, memory=memory)
    for group in groups:
        removed = removed_at(module, group, 0.5)
        for _ in range(2):
            found, expected = (
                cells.predictor(group, cells.pruned_layers(group, removed)),
                whole(module, model, group, removed),
            )
            for batch in batches((3, 16, 16)):
                np.testing.assert_array_equal(found(batch), expected.run(batch))
        assert cells.kept_bytes <= memory
        assert memory or not any(cells.cuts(group).values())


@pytest.mark.slow
def test_where_close_is_enough() -> None:
    """A cut is tried out on one image, once for each group; outputs stay within 1e-5 of the whole network's."""
    shape = ZOO["text_recogniser"]
    model = load_model(shipped("text_recogniser"))
    module = to_torch(model)
    groups = find_groups(module, shape)[1::12]
    cells = Cells(module, model, groups, exact=False)
    for group in groups:
        for ratio in (0.3, 0.6):
            removed = removed_at(module, group, ratio)
            found, expected = (
                cells.predictor(group, cells.pruned_layers(group, removed)),
                whole(module, model, group, removed),
            )
            for batch in batches(shape):
                np.testing.assert_allclose(found(batch), expected.run(batch), rtol=0, atol=1e-5)
        assert list(map(bool, cells.cuts(group).values())) == [True]


def test_where_steps_come_before_images() -> None:
    """Of [T, N, K] one image cannot be cut off the front: the whole batch is compared."""
    shape = ZOO["text_recogniser"]
    model = load_model(shipped("text_recogniser"))
    output = model.graph.output[0]
    model.graph.node.append(onnx.helper.make_node("Transpose", [output.name], ["turned"], perm=[1, 0, 2]))
    output.name = "turned"
    first, second, *_ = output.type.tensor_type.shape.dim
    first.dim_param, second.dim_param = "steps", "batch"
    module = to_torch(model)
    group = find_groups(module, shape)[-1]
    for batch_first in (True, False):
        cells = Cells(module, model, [group], exact=False, batch_first=batch_first)
        cells.predictor(group, cells.pruned_layers(group, removed_at(module, group, 0.5)))(batches(shape)[0])
        assert list(map(bool, cells.cuts(group).values())) == [not batch_first]


def test_a_part_that_does_not_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then whole networks run; here onnxruntime refuses every part, as it does what a cut leaves of an unknown type."""

    def broken(*_: object) -> onnx.ModelProto:
        return onnx.ModelProto()

    monkeypatch.setattr("compress.pipeline.scanning.cells.cone_model", broken)
    model = from_torch(nets.initialise(nets.SqueezeExcite()), torch.zeros(1, 3, 16, 16))
    assert check_cells(model, (3, 16, 16), (0.5,)) == 0.0


def test_the_share_that_a_cell_computes() -> None:
    """By hand: of conv1 162, conv2 432 at a quarter of the places, fc 32; the last group's cells compute less."""
    model = from_torch(nets.initialise(nets.Plain()), torch.zeros(1, 3, 16, 16))
    module = to_torch(model)
    groups = find_groups(module, (3, 16, 16))
    first, second, third = 162 * 256, 432 * 64, 32
    whole = first + second + third
    shares = [Cells(module, model, [group]).share((3, 16, 16)) for group in groups]
    assert shares == [1.0, pytest.approx((second + third) / whole)]
    assert Cells(module, model, groups).share((3, 16, 16)) == pytest.approx(sum(shares) / 2)


def test_other_images_than_before() -> None:
    """A task that scores other images each time would be given the outputs of the first."""
    model = from_torch(nets.initialise(nets.Residual()), torch.zeros(1, 3, 16, 16))
    module = to_torch(model)
    groups = find_groups(module, (3, 16, 16))
    cells, (batch, _) = Cells(module, model, groups), batches((3, 16, 16))
    cells.original()(batch)
    group = next(group for group in groups if "expand1" in group.name)
    cell = cells.predictor(group, cells.pruned_layers(group, removed_at(module, group, 0.5)))
    with pytest.raises(DataError, match=r"^the task gives other images each time"):
        cell(batch + 1)


def test_a_model_of_one_image_at_a_time() -> None:
    model = from_torch(nets.initialise(nets.Plain()), torch.zeros(1, 3, 16, 16))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    check_cells(model, (3, 16, 16), (0.5,))


def test_a_scan_has_the_figures_of_one_that_evaluates_every_network_from_scratch(tmp_path: Path) -> None:
    folder = tiny.write_inputs(tmp_path, crops=12)
    model = load_model(folder / "model.onnx")
    task = tiny.task(folder)
    module, ratios = to_torch(model), (0.25, 0.5, 0.75)
    groups = find_groups(module, tiny.SHAPE)
    compensate = Compensation(module, reader_equations(module, groups, task.calibration_batches(24, 24)))
    for recover in ("none", "reconstruct"):
        found = stepping.scan(
            model, task, tmp_path / recover, criterion="fpgm", ratios=ratios, recover=recover, threads=1
        )
        expected = scan_sensitivity(
            module,
            groups,
            ScanRequest(ratios, "fpgm", "", task.metric_name, tiny.SHAPE),
            by_pruned_copies(
                module,
                lambda net: score_model(to_onnx(as_graph_module(net), model), task, 1).metric,
                compensate if recover == "reconstruct" else None,
            ),
        )
        assert (found.baseline, found.curves) == (expected.baseline, expected.curves)
