"""The scan: which cells it measures, that it can stop and go on, and that it leaves no trace."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from compress import artifacts
from compress.artifacts import Sensitivity
from compress.errors import ArtifactError, PlanError
from compress.measure.cost import layer_positions, module_cost
from compress.prune.channels import channel_blocks, remove_channels
from compress.prune.groups import find_groups
from compress.prune.sensitivity import ScanRequest, by_pruned_copies, count_cells, group_macs, scan_sensitivity
from tests.prune import nets

SHAPE = (3, 8, 8)
RATIOS = (0.25, 0.5, 0.75)


@pytest.fixture
def module() -> nn.Module:
    return nets.initialise(nets.SqueezeExcite())


def mean_output(module: nn.Module) -> float:
    """A metric that depends on every weight."""
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return float(module(x).mean())


def scan(module: nn.Module, evaluate: Callable[[nn.Module], float] = mean_output, **options: object) -> Sensitivity:
    settings = {"ratios": RATIOS, "criterion": "fpgm", "fingerprint": "abc", "metric_name": "mean"}
    request = {key: options.pop(key, value) for key, value in settings.items()}
    return scan_sensitivity(
        module,
        find_groups(module, SHAPE),
        ScanRequest(**request, input_shape=SHAPE),  # type: ignore[arg-type]
        by_pruned_copies(module, evaluate),
        **options,  # type: ignore[arg-type]
    )


def test_each_cell_is_the_metric_with_that_group_alone_pruned(module: nn.Module) -> None:
    seen: list[tuple[int, ...]] = []

    def widths(module: nn.Module) -> float:
        seen.append((module.stem.out_channels, module.expand.out_channels, module.se1.out_channels))
        return float(len(seen))

    result = scan(module, widths)
    assert seen == [
        (8, 16, 4),
        (6, 16, 4), (4, 16, 4), (2, 16, 4),
        (8, 12, 4), (8, 8, 4), (8, 4, 4),
        (8, 16, 3), (8, 16, 2), (8, 16, 1),
    ]  # fmt: skip
    assert result.baseline == 1.0
    assert result.ratios == RATIOS
    assert result.curves["stem"].metric == {"0.25": 2.0, "0.5": 3.0, "0.75": 4.0}
    assert result.curves["expand"].channels == 16
    assert result.curves["expand"].layers[0] == "expand"


def test_the_module_is_left_bit_identical(module: nn.Module) -> None:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    scan(module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("stop_after", [1, 3, 4, 8])
def test_stopped_and_resumed_equals_one_go(module: nn.Module, tmp_path: Path, stop_after: int) -> None:
    class Killed(Exception):
        pass

    path = tmp_path / "sensitivity.json"
    calls = 0

    def store(partial: Sensitivity) -> None:
        nonlocal calls
        artifacts.save(partial, path)
        calls += 1
        if calls == stop_after:
            raise Killed

    with pytest.raises(Killed):
        scan(module, on_cell=store)
    resumed_evaluations: list[nn.Module] = []

    def evaluate(pruned: nn.Module) -> float:
        resumed_evaluations.append(pruned)
        return mean_output(pruned)

    resumed = scan(module, evaluate, previous=artifacts.load(Sensitivity, path))
    assert artifacts.to_json(resumed) == artifacts.to_json(scan(module))
    assert len(resumed_evaluations) == 9 - stop_after


def test_a_finished_scan_is_not_measured_again(module: nn.Module) -> None:
    finished = scan(module)

    def never(_: nn.Module) -> float:
        raise AssertionError("measured again")

    assert scan(module, never, previous=finished) == finished


def test_further_ratios_reuse_the_cells_there_are(module: nn.Module) -> None:
    evaluations: list[nn.Module] = []

    def evaluate(pruned: nn.Module) -> float:
        evaluations.append(pruned)
        return mean_output(pruned)

    more = scan(module, evaluate, ratios=(0.5, 0.875), previous=scan(module))
    assert len(evaluations) == 3  # each group at 0.875
    assert more == scan(module, ratios=(0.5, 0.875))


def test_ratios_that_remove_the_same_channels_share_a_measurement(module: nn.Module) -> None:
    counts: list[int] = []

    def evaluate(pruned: nn.Module) -> float:
        counts.append(pruned.se1.out_channels)
        return mean_output(pruned)

    result = scan(module, evaluate, ratios=(0.05, 0.5, 0.51))
    se1 = result.curves["se1"].metric
    assert se1["0.5"] == se1["0.51"]
    assert se1["0.05"] == result.baseline
    assert counts.count(2) == 1


def test_progress_counts_cells(module: nn.Module) -> None:
    steps: list[tuple[int, int, str]] = []
    scan(module, on_progress=lambda *step: steps.append(step))
    assert [step[0] for step in steps] == list(range(1, 10))
    assert {step[1] for step in steps} == {9}
    assert steps[0][2].startswith("stem at 0.25: mean ")


def test_a_scan_of_another_model_is_refused(module: nn.Module) -> None:
    with pytest.raises(ArtifactError, match=r"stale.*fingerprint abc, now def"):
        scan(module, previous=scan(module), fingerprint="def")


def test_an_unknown_criterion_is_refused(module: nn.Module) -> None:
    with pytest.raises(PlanError, match=r"criterion: got 'l3'\. Must be one of fpgm, l1, l2"):
        scan(module, criterion="l3")


@pytest.mark.parametrize("ratios", [(0.5, 1.0), (0.0,), (-0.1,), ()])
def test_ratios_out_of_range_are_refused(module: nn.Module, ratios: tuple[float, ...]) -> None:
    with pytest.raises(PlanError, match=r"ratios: got .*\. Each must lie in \(0, 1\)"):
        scan(module, ratios=ratios)


@pytest.mark.parametrize("kind", [nets.Plain, nets.Residual, nets.SqueezeExcite, nets.Concat, nets.Recurrent])
def test_group_macs_are_what_its_channels_take_part_in(kind: type[nn.Module]) -> None:
    module = nets.initialise(kind())
    positions = layer_positions(module, SHAPE)
    _, full = module_cost(module, SHAPE)
    for group in find_groups(module, SHAPE):
        # Removing one of C channels (one unit per direction) frees at least 1/C of them, and the rest with the others.
        total = group_macs(module, group, positions)
        gone = [block.start for block in channel_blocks(group)]
        _, without = module_cost(remove_channels(module, [group], {group.name: gone}), SHAPE)
        assert total * len(gone) / group.channels * 0.999 <= full - without <= total


def test_group_macs_by_hand() -> None:
    module = nets.initialise(nets.Plain())
    macs = {g.name: group_macs(module, g, layer_positions(module, SHAPE)) for g in find_groups(module, SHAPE)}
    conv1, conv2, fc = 6 * 27 * 64, 8 * 54 * 16, 8 * 4
    assert macs == {"conv1": conv1 + conv2, "conv2": conv2 + fc}


def test_the_stored_scan_is_plain_json(module: nn.Module, tmp_path: Path) -> None:
    artifacts.save(scan(module), tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text())["curves"]["stem"]["channels"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("ratios", [RATIOS, (0.01, 0.5), (0.5, 0.51, 0.52), (0.1, 0.2, 0.3, 0.4, 0.9)])
def test_cells_are_counted_as_they_are_measured(module: nn.Module, ratios: tuple[float, ...]) -> None:
    """Whole, and what is left after a stop anywhere; a group left whole or thinned out alike is measured once."""
    calls = 0
    partial: list[Sensitivity] = []

    def count(_: nn.Module) -> float:
        nonlocal calls
        calls += 1
        return float(calls)

    scan(module, count, ratios=ratios, on_cell=partial.append)
    groups = find_groups(module, SHAPE)
    assert count_cells(groups, ratios) == calls - 1
    for previous in partial:
        calls = 0
        scan(module, count, ratios=ratios, previous=previous)
        assert count_cells(groups, ratios, previous) == calls
