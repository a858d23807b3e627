"""What runs in integers: chosen by the files' times, kept, and described."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
import torch

from compress import artifacts
from compress.artifacts import Latency, Placement
from compress.errors import ArtifactError
from compress.graph import from_torch, load_model, read_model
from compress.graph.padding import paddable_sets
from compress.measure.latency_table import LatencyTable
from compress.measure.operator_times import Operator, OperatorTime, measure_operator
from compress.pipeline import run_quantize, score_model
from compress.pipeline.execution import Execution
from compress.pipeline.stages import placement as stage
from compress.pipeline.stages.nearness import Candidate, Start
from compress.pipeline.stages.placement import (
    ALL_FLOAT,
    ALL_INTEGER,
    CANONICAL,
    PADDED,
    PADDED_FLOAT,
    PLAIN,
    Lowered,
    place,
    placement_lines,
)
from compress.recipe import QuantizeStep
from tests.graph.graphs import assert_same, ops
from tests.pipeline import tiny
from tests.quant import nets

SHAPE = nets.SHAPE


def model(name: str = "mobile") -> onnx.ModelProto:
    return nets.template(name)


def table(tmp_path: Path, ratio: float = 0.5) -> LatencyTable:
    """Integer kernels take `ratio` of the float ones' time."""

    def measure(operator: Operator, threads: int) -> OperatorTime:
        return OperatorTime(ratio if operator.precision == "int8" else 1.0)

    return LatencyTable(tmp_path / "table.json", measure=measure)


def table_for_padding(tmp_path: Path) -> LatencyTable:
    """Integer convolutions are quick where all channels are multiples of 16, slower than float elsewhere."""

    def measure(operator: Operator, threads: int) -> OperatorTime:
        if operator.precision != "int8":
            return OperatorTime(1.0 if operator.op_type == "Conv" else 0.1)
        uneven = operator.op_type == "Conv" and any(n % 16 for n in operator.weight[:2])
        return OperatorTime(2.0 if uneven else 0.1)

    return LatencyTable(tmp_path / "blocks.json", measure=measure)


def table_for_float_padding(tmp_path: Path) -> LatencyTable:
    """Float convolutions are quick where all channels are multiples of 16; integers never are."""

    def measure(operator: Operator, threads: int) -> OperatorTime:
        uneven = operator.op_type == "Conv" and any(n % 16 for n in operator.weight[:2])
        return OperatorTime((2.0 if uneven else 0.5) * (3.0 if operator.precision == "int8" else 1.0))

    return LatencyTable(tmp_path / "float.json", measure=measure)


def with_times(
    monkeypatch: pytest.MonkeyPatch,
    times: dict[str, float],
    otherwise: float = 9.0,
    shape: tuple[int, int, int] = SHAPE,
) -> None:
    """Let files take these milliseconds, by the name of their assignment."""
    expected = shape

    def measure(files: dict[str, bytes], shape: tuple[int, ...], **_: object) -> dict[str, Latency]:
        assert shape == expected
        return {name: Latency(times.get(name, otherwise), 0, 0, 1, 1) for name in files}

    monkeypatch.setattr(stage, "measure_latency", measure)


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


@dataclasses.dataclass
class Scored:
    """Scores by a candidate's name, 0.5 where there is none."""

    found: dict[str, float] = dataclasses.field(default_factory=dict)
    images: str = "these"
    seen: set[str] = dataclasses.field(default_factory=set)

    def start(self, lowered: onnx.ModelProto) -> Start:
        return Start(99.9, {"percentile 99.9": 0.8})

    def scores(self, candidates: Sequence[Candidate], percentile: float | None) -> dict[str, float]:
        assert percentile == 99.9
        self.seen |= {one.name for one in candidates}
        return {one.name: self.found.get(one.name, 0.5) for one in candidates}

    def identity(self) -> str:
        return self.images


@pytest.mark.parametrize(("slower", "chosen"), [(1.14, ALL_FLOAT), (1.16, ALL_INTEGER)])
def test_accuracy_takes_the_nearest_of_those_fast_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slower: float, chosen: str
) -> None:
    with_times(monkeypatch, {ALL_INTEGER: 1.0, ALL_FLOAT: slower})
    step, score = QuantizeStep(optimize="accuracy"), Scored({ALL_INTEGER: 0.8, ALL_FLOAT: 0.9})
    made = place(model(), step, SHAPE, lambda _: (), table=table(tmp_path), nearness=score)
    found = made.placement
    assert found is not None
    assert found.chosen == chosen
    assert found.scores == (score.found if chosen == ALL_FLOAT else {})
    assert made.percentile == found.percentile == 99.9
    line = placement_lines(found)[0]
    assert ("fast ones are to the float network: " in line) == (chosen == ALL_FLOAT)
    assert line.endswith("by where ranges start, all in integers: percentile 99.9 0.8000")


def test_of_the_nearest_the_fastest_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_times(monkeypatch, {ALL_INTEGER: 1.01, ALL_FLOAT: 1.0})
    step = QuantizeStep(optimize="accuracy")
    found = place(model(), step, SHAPE, lambda _: (), table=table(tmp_path), nearness=Scored()).placement
    assert found is not None
    assert found.chosen == ALL_FLOAT


def test_accuracy_also_tries_what_is_convolved_after_upsampling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chosen, it is what is quantised, now and when the run goes on; around layers of a budget it is all that is."""
    neck = from_torch(nets.initialise(nets.Neck()), torch.zeros(1, *SHAPE))
    file = tmp_path / "int8.placement.json"
    plain = ALL_INTEGER + PLAIN
    with_times(monkeypatch, {ALL_INTEGER: 1.0, plain: 1.1})

    score = Scored({ALL_INTEGER: 0.8, plain: 0.9})

    def placed(**settings: float) -> Lowered:
        step = QuantizeStep(optimize="accuracy", **settings)
        return place(neck, step, SHAPE, lambda _: (), file=file, table=table(tmp_path), nearness=score)

    first = placed()
    assert first.placement is not None
    assert first.placement.chosen == plain
    assert not first.placement.resampled
    assert "DepthToSpace" not in ops(first.model)
    assert "Resize" in ops(first.model)
    assert placed() == first
    assert score.seen == {ALL_INTEGER, plain}
    with_times(monkeypatch, {ALL_INTEGER: 1.0})
    budgeted = placed(float_budget=0.1)
    assert "DepthToSpace" not in ops(budgeted.model)
    assert budgeted.placement is not None
    assert not any(name.endswith(PLAIN) for name in budgeted.placement.tried)
    assert placed(float_budget=0.1) == budgeted


def test_of_other_images_accuracy_chooses_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, step = tmp_path / "int8.placement.json", QuantizeStep(optimize="accuracy")
    with_times(monkeypatch, {ALL_INTEGER: 1.0, ALL_FLOAT: 1.1})
    for images, better in (("these", ALL_INTEGER), ("those", ALL_FLOAT)):
        score = Scored({better: 0.9}, images)
        found = place(model(), step, SHAPE, lambda _: (), file=file, table=table(tmp_path), nearness=score).placement
        assert found is not None
        assert found.chosen == better


def test_size_times_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "measure_latency", None)
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


@pytest.mark.parametrize("optimize", ["latency", "balanced"])
def test_padded_channels_that_the_table_is_for_are_timed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimize: str
) -> None:
    """Where the padded file is the fastest, the padded model is what is quantised, now and when the run goes on."""
    file, step = tmp_path / "int8.placement.json", QuantizeStep(optimize=optimize)
    with_times(monkeypatch, {PADDED: 1.0})
    first = place(model(), step, SHAPE, lambda _: (), file=file, table=table_for_padding(tmp_path))
    placement = first.placement
    assert placement is not None
    assert placement.chosen == PADDED
    widths = {found.name: found.channels for found in paddable_sets(first.model)}
    assert set(widths.values()) == {16}
    assert placement.padding == {found.name: 16 for found in paddable_sets(model()) if found.channels < 16}
    assert_same(model(), first.model, ((1, *SHAPE),))
    first_name, before = next((found.name, found.channels) for found in paddable_sets(model()))
    assert f"channels padded with zeros to what the kernels work on: {first_name} {before} -> 16" in placement.notes[0]
    assert placement.notes[0] in placement_lines(placement)
    assert placement.sizes[PADDED] > placement.sizes[ALL_INTEGER]
    monkeypatch.setattr(stage, "measure_latency", None)
    again = place(model(), step, SHAPE, lambda _: (), file=file, table=table_for_padding(tmp_path))
    assert again == first


def test_a_padded_file_that_is_slower_as_a_whole_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table's sum was wrong."""
    with_times(monkeypatch, {ALL_INTEGER: 1.0, PADDED: 1.1})
    found = place(model(), QuantizeStep(), SHAPE, lambda _: (), table=table_for_padding(tmp_path))
    assert found.placement is not None
    assert (found.placement.chosen, found.placement.tried[PADDED]) == (ALL_INTEGER, 1.1)
    assert (found.placement.padding, found.placement.notes) == ({}, ())
    assert ops(found.model) == ops(model())
    assert paddable_sets(found.model) == paddable_sets(model())


def test_a_padded_network_in_float_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was called a choice by the table, beside a note that the network runs in float."""
    with_times(monkeypatch, {PADDED: 1.0, PADDED_FLOAT: 1.0})
    found = place(model(), QuantizeStep(), SHAPE, lambda _: (), table=table_for_float_padding(tmp_path)).placement
    assert found is not None
    assert (found.chosen, PADDED in found.tried) == (PADDED_FLOAT, False)
    assert {region.precision for region in found.regions} == {"float32"}
    first, note, padded = placement_lines(found)
    assert PADDED_FLOAT in first
    assert "(0 of " in first
    assert "the network runs in float" in note
    assert "channels padded" in padded


@pytest.mark.parametrize("name", ["mobile", "conv_output", "plain"])
@pytest.mark.parametrize("fastest", [ALL_INTEGER, ALL_FLOAT, "by the table", PADDED])
def test_regions_and_notes_say_what_the_file_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fastest: str
) -> None:
    """A file holds a QuantizeLinear exactly if a region is said to be in integers."""
    with_times(monkeypatch, {fastest: 1.0})
    files: dict[str, bytes] = {}
    timed = stage.measure_latency

    def keep(given: dict[str, bytes], *arguments: object, **options: object) -> dict[str, Latency]:
        files.update(given)
        return timed(given, *arguments, **options)

    monkeypatch.setattr(stage, "measure_latency", keep)
    found = place(model(name), QuantizeStep(), SHAPE, lambda _: (), table=table_for_padding(tmp_path)).placement
    assert found is not None
    quantised = "QuantizeLinear" in ops(onnx.load_from_string(files[found.chosen]))
    assert quantised == any(region.precision == "int8" for region in found.regions)
    assert quantised != any("runs in float" in line for line in placement_lines(found))


def test_a_choice_is_timed_on_the_threads_that_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measure(files: dict[str, bytes], shape: tuple[int, ...], *, threads: int, **_: object) -> dict[str, Latency]:
        asked.append(threads)
        return {name: Latency(float(threads), 0, 0, threads, 1) for name in files}

    monkeypatch.setattr(stage, "measure_latency", measure)
    file = tmp_path / "int8.placement.json"
    for threads in (2, 2, 3):  # the second time it is taken as it is
        found = place(model(), QuantizeStep(), SHAPE, lambda _: (), threads=threads, file=file).placement
        assert found is not None
        assert found.threads == threads
        assert f"{threads} thread(s)" in placement_lines(found)[0]
    assert asked == [2, 3]


@pytest.mark.parametrize("what", ["cpu", "flags", "onnxruntime"])
def test_a_choice_of_another_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    with_times(monkeypatch, {ALL_INTEGER: 1.0})
    file = tmp_path / "int8.placement.json"
    first = run(tmp_path, file=file)
    moved = dataclasses.replace(first, machine={**first.machine, what: "another"})
    artifacts.save(moved, file)
    here = first.machine[what]
    with pytest.raises(ArtifactError, match=f"json: timed on another machine: {what} is another, here .*delete it"):
        run(tmp_path, file=file)
    assert artifacts.load(Placement, file) == moved
    assert here
    assert "another" in placement_lines(moved)[0] or what != "cpu"  # the machine that it was timed on, not this one


def test_where_padding_does_not_pay_no_file_of_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_times(monkeypatch, {ALL_INTEGER: 1.0})
    assert PADDED not in run(tmp_path).tried


@pytest.mark.slow
def test_real_times_are_never_worse_than_all_in_float(tmp_path: Path) -> None:
    """On this machine, whatever it is: of the files that were timed none is faster than the chosen one."""
    table = LatencyTable(tmp_path / "table.json", measure=measure_operator)
    found = place(model(), QuantizeStep(), SHAPE, lambda _: (), table=table).placement
    assert found is not None
    assert found.tried[found.chosen] == min(ms for name, ms in found.tried.items() if name != CANONICAL)
    assert sum(region.operators for region in found.regions) > 5


def test_a_padded_network_is_trained_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the choice to the file: its convolutions have the padded widths, it agrees and scores as the one without."""
    folder = tiny.write_inputs(tmp_path, crops=6)
    canonical = load_model(folder / "model.onnx")
    task = tiny.task(folder)
    step = QuantizeStep(epochs=1, batch_size=6, calibration=8, distill=0.0)
    monkeypatch.setattr(stage, "LatencyTable", lambda threads: table_for_padding(tmp_path))
    found = {}
    for name in (ALL_INTEGER, PADDED):
        with_times(monkeypatch, {name: 1.0}, shape=tiny.SHAPE)
        found[name] = run_quantize(
            canonical, None, task, tmp_path / f"{name}.onnx", step, execution=Execution(threads=1)
        )
        assert found[name].placement is not None
        assert found[name].placement.chosen == name
    assert any("channels padded" in note for note in found[PADDED].notes)
    assert found[PADDED].parity.max_steps <= found[PADDED].parity.tolerance
    files_made = {name: read_model(tmp_path / f"{name}.onnx") for name in found}
    assert files_made[PADDED].ByteSize() > files_made[ALL_INTEGER].ByteSize()
    narrow, wide = (score_model(tmp_path / f"{name}.onnx", task, 1).metric for name in (ALL_INTEGER, PADDED))
    assert wide == pytest.approx(narrow, abs=0.2)
    again = run_quantize(canonical, None, task, tmp_path / f"{PADDED}.onnx", step, execution=Execution(threads=1))
    assert again.placement == found[PADDED].placement
    assert read_model(tmp_path / f"{PADDED}.onnx") == files_made[PADDED]
