"""The scan of activations: which cells it measures, that it can stop and go on; and which ones its rule takes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress import artifacts
from compress.artifacts import ActivationScan
from compress.errors import ArtifactError, PlanError
from compress.prune.activation_scan import choose_activations, scan_activations

NAMES = ("stem", "b/1", "a/2", "last")
COST = {"stem": 0.3, "b/1": 0.02, "a/2": 0.0, "last": -0.01}
SWAP = ("hardswish", "relu")


def metric(replaced: tuple[str, ...]) -> float:
    """.9 less what each costs."""
    return 0.9 - sum(COST[name] for name in replaced)


def scan(
    names: tuple[str, ...] = NAMES, evaluate: Callable[[tuple[str, ...]], float] = metric, **options: object
) -> ActivationScan:
    settings = {"fingerprint": "abc", "metric_name": "accuracy"} | options
    return scan_activations(names, SWAP, evaluate=evaluate, **settings)  # type: ignore[arg-type]


def test_each_cell_is_the_metric_with_that_one_alone_replaced() -> None:
    seen: list[tuple[str, ...]] = []

    def evaluate(replaced: tuple[str, ...]) -> float:
        seen.append(replaced)
        return metric(replaced)

    found = scan(evaluate=evaluate)
    assert seen == [(), ("stem",), ("b/1",), ("a/2",), ("last",)]
    assert (found.baseline, found.original, found.replacement) == (0.9, "hardswish", "relu")
    assert {name: found.drop(name) for name in NAMES} == pytest.approx(COST)


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_stopped_and_resumed_equals_one_go(tmp_path: Path, stop_after: int) -> None:
    path, calls = tmp_path / "activations.json", 0

    def killed(replaced: tuple[str, ...]) -> float:
        nonlocal calls
        calls += 1
        if calls > stop_after + 1:  # the first is the network as it is
            raise KeyboardInterrupt
        return metric(replaced)

    if stop_after < len(NAMES):
        with pytest.raises(KeyboardInterrupt):
            scan(evaluate=killed, on_cell=lambda part: artifacts.save(part, path))
    else:
        scan(evaluate=killed, on_cell=lambda part: artifacts.save(part, path))
    seen: list[tuple[str, ...]] = []

    def rest(replaced: tuple[str, ...]) -> float:
        seen.append(replaced)
        return metric(replaced)

    found = scan(evaluate=rest, previous=artifacts.load(ActivationScan, path))
    assert seen == [(name,) for name in NAMES[stop_after:]]
    assert artifacts.to_json(found) == artifacts.to_json(scan())


def test_cells_of_other_activations_are_kept() -> None:
    first = scan(("stem",))
    both = scan(("last",), previous=first)
    assert set(both.metric) == {"stem", "last"}


def test_progress_counts_what_was_asked_for() -> None:
    lines: list[tuple[int, int, str]] = []
    scan(NAMES[:2], on_progress=lambda *line: lines.append(line))
    assert lines == [(1, 2, "stem: accuracy 0.6000"), (2, 2, "b/1: accuracy 0.8800")]


@pytest.mark.parametrize("change", [{"fingerprint": "other"}, {"swap": ("hardswish", "relu6")}])
def test_a_scan_of_something_else_is_stale(change: dict[str, object]) -> None:
    previous = scan()
    swap = change.pop("swap", SWAP)
    settings = {"fingerprint": "abc", "metric_name": "accuracy"} | change
    with pytest.raises(ArtifactError, match=r"activations: stale: .*Delete it, or choose another --out folder\."):
        scan_activations(NAMES, swap, evaluate=metric, previous=previous, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metric_drop", "expected"),
    [(0.0, ("a/2", "last")), (0.02, ("b/1", "a/2", "last")), (0.3, NAMES), (0.299, NAMES[1:])],
)
def test_those_are_taken_whose_drop_stays_within_the_limit(metric_drop: float, expected: tuple[str, ...]) -> None:
    assert choose_activations(scan(), NAMES, metric_drop) == expected


@given(st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_wider_limit_takes_no_fewer(one: float, other: float) -> None:
    few, many = (set(choose_activations(scan(), NAMES, limit)) for limit in sorted((one, other)))
    assert few <= many


def test_only_the_named_ones_are_chosen_from() -> None:
    assert choose_activations(scan(), ("stem", "a/2"), 0.02) == ("a/2",)


def test_a_limit_that_takes_none() -> None:
    text = r"replace\.metric_drop: 0\.01 leaves every hardswish as it is: the least drop is 0\.0200, of b/1\. Use more"
    with pytest.raises(PlanError, match=text):
        choose_activations(scan(), ("stem", "b/1"), 0.01)
