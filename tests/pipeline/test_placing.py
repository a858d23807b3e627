"""What runs in integers: chosen by the files' times, kept, and described."""

from pathlib import Path

import onnx
import pytest

from compress import artifacts
from compress.artifacts import Latency, Placement
from compress.measure.latency_table import LatencyTable
from compress.measure.operators import Operator, OperatorTime, measure_operator
from compress.pipeline import placing
from compress.pipeline.placing import ALL_FLOAT, ALL_INTEGER, CANONICAL, place, placement_lines
from compress.recipe import QuantizeStep
from tests.graph.graphs import assert_same, ops
from tests.quant import nets

SHAPE = nets.SHAPE


def model(name: str = "mobile") -> onnx.ModelProto:
    return nets.template(name)


def table(tmp_path: Path, ratio: float = 0.5) -> LatencyTable:
    """Integer kernels take `ratio` of the float ones' time."""

    def measure(operator: Operator, threads: int) -> OperatorTime:
        return OperatorTime(ratio if operator.precision == "int8" else 1.0)

    return LatencyTable(tmp_path / "table.json", measure=measure)


def with_times(monkeypatch: pytest.MonkeyPatch, times: dict[str, float], otherwise: float = 9.0) -> None:
    """Let files take these milliseconds, by the name of their assignment."""

    def measure(files: dict[str, bytes], shape: tuple[int, ...], **_: object) -> dict[str, Latency]:
        assert shape == SHAPE
        return {name: Latency(times.get(name, otherwise), 0, 0, 1, 1) for name in files}

    monkeypatch.setattr(placing, "measure_latency", measure)


def run(tmp_path: Path, optimize: str = "latency", file: Path | None = None, **options: float) -> Placement:
    step = QuantizeStep(optimize=optimize)
    found = place(model(), step, SHAPE, lambda _: (), file=file, table=table(tmp_path, **options))
    assert_same(model(), found.model, ((1, *SHAPE),))
    assert found.placement is not None
    assert found.float_values == found.placement.float_values
    return found.placement


@pytest.mark.parametrize("fastest", [ALL_INTEGER, ALL_FLOAT, "by the table"])
def test_latency_takes_the_fastest_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fastest: str) -> None:
    with_times(monkeypatch, {fastest: 1.0, CANONICAL: 2.0})
    found = run(tmp_path, ratio=3.0 if fastest == ALL_INTEGER else 1.5)
    assert found.tried[found.chosen] == 1.0 or fastest not in found.tried
    assert (found.chosen == ALL_FLOAT) == any("integers do not pay" in line for line in placement_lines(found))


def test_balanced_takes_the_smallest_of_those_nearly_as_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_times(monkeypatch, {ALL_INTEGER: 1.0, ALL_FLOAT: 1.04})
    found = run(tmp_path, "balanced")
    assert found.chosen == min((ALL_INTEGER, ALL_FLOAT), key=found.sizes.__getitem__)
    with_times(monkeypatch, {ALL_INTEGER: 1.0, ALL_FLOAT: 1.06})
    assert run(tmp_path, "balanced").chosen == ALL_INTEGER


def test_size_times_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "measure_latency", None)
    found = place(model("conv_output"), QuantizeStep(optimize="size"), SHAPE, lambda _: ())
    assert found.placement is None
    assert ops(found.model) == ops(model("conv_output"))
    assert found.float_values == (model("conv_output").graph.output[0].name,)


def test_a_choice_that_was_made_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timing differs from run to run; a run that goes on must make the same file."""
    file = tmp_path / "int8.placement.json"
    with_times(monkeypatch, {ALL_INTEGER: 1.0})
    first = run(tmp_path, file=file)
    assert artifacts.load(Placement, file) == first
    with_times(monkeypatch, {ALL_FLOAT: 1.0})
    assert run(tmp_path, file=file) == first
    assert run(tmp_path, "balanced", file=file).chosen == ALL_FLOAT  # other settings: chosen anew


def test_real_times_are_never_worse_than_all_in_float(tmp_path: Path) -> None:
    """On this machine, whatever it is: of the files that were timed none is faster than the chosen one."""
    table = LatencyTable(tmp_path / "table.json", measure=measure_operator)
    found = place(model(), QuantizeStep(), SHAPE, lambda _: (), table=table).placement
    assert found is not None
    assert found.tried[found.chosen] == min(ms for name, ms in found.tried.items() if name != CANONICAL)
    assert sum(region.operators for region in found.regions) > 5
