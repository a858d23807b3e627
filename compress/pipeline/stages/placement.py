"""Choose what of a network runs in integers: by a table of operators' times, and then by timing whole files."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import onnx
from torch import fx

from compress import artifacts
from compress.artifacts import Placement, QuantSensitivity, Region, fingerprint
from compress.errors import ArtifactError
from compress.export import export_int8
from compress.graph import to_torch
from compress.graph.lowering import lower_for_int8
from compress.graph.padding import pad_channels
from compress.measure.latency import measure_latency
from compress.measure.latency_table import LatencyTable
from compress.measure.machine import machine_info
from compress.pipeline.stages.forms import Form, padded_form, read_form
from compress.pipeline.stages.int8_scan import resamples
from compress.pipeline.stages.nearness import Candidate, Start
from compress.pipeline.stages.prepared import prepare
from compress.progress import Progress
from compress.quant.min_cut import INTEGER, describe, fastest_placement
from compress.quant.nodes import integer_nodes, is_fused, is_move, output_values, value_name
from compress.recipe import QuantizeStep

FAVOURS = (1.0, 0.85, 0.7, 1.2, 1.5)
"""By what times in integers are multiplied before the assignment of least time is sought: 1, and others, since the sum
of operators' times is only a model of the whole network's. Which one is best is measured."""
BALANCED = 1.05
"""`balanced` takes the smallest file of those that take at most so many times the fastest one's time."""
SLACK = 1.15
"""`accuracy` takes the most accurate of those that take at most so many times the fastest one's time."""
ROUNDS, BUDGET_S = 40, 20.0
"""Timed rounds of all files interleaved, fewer if that takes longer."""
PADDED, PADDED_FLOAT = "by the table, channels padded", "float throughout, channels padded, int8 weights"
PLAIN = ", convolutions as they are"
"""What names of assignments end with where nothing is computed at lower resolution than in the model."""
CANONICAL, ALL_INTEGER, ALL_FLOAT = "float32", "int8 throughout", "float throughout, int8 weights"


FloatLayers = Callable[[fx.GraphModule], Collection[str]]
"""A lowered module -> its layers that stay in float."""


class Scorer(Protocol):
    """Says how good ways to quantise a network are (see `compress.pipeline.stages.nearness`)."""

    def start(self, lowered: onnx.ModelProto) -> Start:
        """Where ranges should start."""

    def scores(self, candidates: Sequence[Candidate], percentile: float | None) -> Mapping[str, float]:
        """Name of each -> its score with such ranges, higher is better."""

    def identity(self) -> str:
        """Fingerprint of what scores depend on beside the network."""


@dataclass(frozen=True)
class Lowered:
    """A network in the form that is quantised."""

    model: onnx.ModelProto
    """With channels padded, where that was chosen."""
    float_values: tuple[str, ...]
    """What computes in float although integer kernels exist."""
    placement: Placement | None
    """How that was chosen; None for `size`, where nothing is."""
    sensitivity: QuantSensitivity | None = None
    """What each layer costs in integers, and which of them a budget leaves in float; None without a budget."""

    @property
    def percentile(self) -> float | None:
        """Of |x|, where ranges start, as `accuracy` chose it; None for the least squared error."""
        return self.placement.percentile if self.placement else None

    @property
    def float_layers(self) -> tuple[str, ...]:
        """Layers that the budget leaves in float, beside those that the user names."""
        chosen = self.sensitivity.chosen if self.sensitivity else None
        return chosen.layers if chosen else ()


@dataclass(frozen=True)
class Assignment:
    """A name, a form of the network, what of it computes in float, and the int8 file of that, not yet calibrated."""

    name: str
    form: Form
    float_values: frozenset[str]
    integer: frozenset[str]
    """Operators that the file computes in integers: less than what may, where nothing around an operator does."""
    file: bytes
    resampled: bool = True
    """Whether what is upsampled is computed at low resolution."""


def place(
    model: onnx.ModelProto,
    step: QuantizeStep,
    input_shape: tuple[int, int, int],
    float_layers: FloatLayers,
    *,
    threads: int = 1,
    file: Path | None = None,
    table: LatencyTable | None = None,
    nearness: Scorer | None = None,
    on_progress: Progress | None = None,
) -> Lowered:
    """The lowered model that is quantised, and what of it runs in integers.

    Convolutions that compute an output stay in float: their rounding would be the output's.

    Args:
        model: canonical, float.
        step: its `optimize` says what to look for.
        input_shape: (C, H, W) of an image to time with.
        float_layers: names those layers of the lowered model that the user wants in float.
        threads: of onnxruntime, to time operators and files with.
        file: where the choice is kept; one found there for the same model, settings and threads is taken as it is, so
            that a run that goes on makes the same file.
        table: times of operators; the default is this machine's, in the user's cache folder.
        nearness: scores what is fast enough, for `accuracy` (see `compress.pipeline.stages.nearness`).
        on_progress: called as (done, in all, message).

    Returns:
        The placement is None for `size`: everything that can runs in integers, and nothing is timed.

    Raises:
        ArtifactError: the choice that is kept was timed on another machine, or with another onnxruntime.
    """
    lowered = lower_for_int8(model, resample=resamples(step))
    module = to_torch(lowered)
    if step.optimize == "size":
        return Lowered(lowered, tuple(sorted(output_values(module))), None)
    named = tuple(float_layers(module))
    identity = fingerprint(
        lowered.SerializeToString(deterministic=True),
        step.optimize,
        named,
        input_shape,
        step.weight_bits,
        step.recurrent,
        threads,
        *((nearness.identity(),) if nearness is not None and step.optimize == "accuracy" else ()),
    )
    if file is not None and file.is_file():
        known = artifacts.load(Placement, file)
        if known.fingerprint == identity:
            _check_machine(known, file)
            if known.resampled != resamples(step):
                lowered = lower_for_int8(model, resample=known.resampled)
            return Lowered(pad_channels(lowered, known.padding), known.float_values, known)
    table = table or LatencyTable(threads=threads)
    found = _assignments(lowered, module, step, named, input_shape, table, on_progress)
    assignments = [replace(one, resampled=resamples(step)) for one in found]
    if step.optimize == "accuracy" and resamples(step):
        plain = lower_for_int8(model, resample=False)
        if not _alike(plain, lowered):
            second = to_torch(plain)
            more = _assignments(plain, second, step, tuple(float_layers(second)), input_shape, table, on_progress)
            assignments += [replace(one, name=one.name + PLAIN, resampled=False) for one in more]
    start = Start(step.pact.percentile)
    if step.optimize == "accuracy" and nearness is not None:
        start = nearness.start(lowered)
    best, placement = _fastest(model, assignments, step, input_shape, threads, identity, nearness, start, on_progress)
    if file is not None:
        artifacts.save(placement, file)
    return Lowered(best.form.model, placement.float_values, placement)


def placement_lines(placement: Placement) -> tuple[str, ...]:
    """What a report says of a placement in a sentence or two."""
    integer = sum(region.operators for region in placement.regions if region.precision == INTEGER)
    operators = sum(region.operators for region in placement.regions)
    baseline, chosen = placement.tried[CANONICAL], placement.tried[placement.chosen]
    line = (
        f"placement ({placement.optimize}): {placement.chosen} ({integer} of {operators} operators in integers), "
        f"{chosen:.2f} ms where the same network in float32 took {baseline:.2f}; measured on "
        f"{placement.machine.get('cpu', 'an unknown CPU')}, {placement.threads} thread(s), before calibration, of "
        + ", ".join(f"{name} {ms:.2f}" for name, ms in placement.tried.items() if name != CANONICAL)
    )
    if placement.scores:
        near = ", ".join(f"{name} {score:.4f}" for name, score in placement.scores.items())
        line += f"; how near the fast ones are to the float network: {near}"
    if placement.ranges:
        near = ", ".join(f"{name} {score:.4f}" for name, score in placement.ranges.items())
        line += f"; by where ranges start, all in integers: {near}"
    return (line, *placement.notes)


def able_values(module: fx.GraphModule, float_layers: Collection[str]) -> set[str]:
    """Values that may be computed in integers."""
    integer = integer_nodes(module, float_layers)
    nodes = [*integer, *(node for node in module.graph.nodes if is_move(node) or is_fused(module, node))]
    able = {str(node.meta.get("onnx")) for node in nodes} | {value_name(node) for node in nodes}
    return able - output_values(module)


def _assignments(
    lowered: onnx.ModelProto,
    module: fx.GraphModule,
    step: QuantizeStep,
    float_layers: Collection[str],
    input_shape: tuple[int, int, int],
    table: LatencyTable,
    on_progress: Progress | None,
) -> list[Assignment]:
    """Different files to time: what the table finds fastest, with padding or not, all in integers, all in float."""
    able = able_values(module, float_layers)
    plain = read_form(lowered, able, input_shape, table, on_progress)
    integer = _integer_names(plain)
    wanted = {ALL_INTEGER: frozenset[str](), ALL_FLOAT: integer}
    for favour in FAVOURS:
        name = "by the table" if favour == 1 else f"by the table, integers taken for {favour:g}x as slow"
        wanted[name] = fastest_placement(plain.costs, plain.input_cost, favour) & integer
    made = [_assignment(name, plain, module, chosen, step, float_layers) for name, chosen in wanted.items()]
    padded = padded_form(plain, able, input_shape, table, on_progress)
    if padded is not None:
        able_padded = _integer_names(padded)
        chosen = fastest_placement(padded.costs, padded.input_cost) & able_padded
        one = _assignment(PADDED, padded, to_torch(padded.model), chosen, step, float_layers)
        made.append(one if one.integer else replace(one, name=PADDED_FLOAT))
    different = {one.file: one for one in reversed(made)}
    return [one for one in made if different[one.file] is one]


def _alike(first: onnx.ModelProto, second: onnx.ModelProto) -> bool:
    graphs = [model.graph.SerializeToString(deterministic=True) for model in (first, second)]
    return graphs[0] == graphs[1]


def _assignment(
    name: str,
    form: Form,
    module: fx.GraphModule,
    chosen: frozenset[str],
    step: QuantizeStep,
    float_layers: Collection[str],
) -> Assignment:
    """The int8 file of a form with these operators in float, and those that compute an output."""
    values = chosen | output_values(module)
    prepared = prepare(module, step, float_layers=float_layers, float_values=values)
    recurrent = "weights" if step.recurrent == "auto" else step.recurrent
    made = export_int8(prepared, form.model, recurrent=recurrent, weight_bits=step.weight_bits).model
    integer = _computed_in_integers(form, module, prepared, values)
    return Assignment(name, form, values, integer, made.SerializeToString(deterministic=True))


def _computed_in_integers(
    form: Form, module: fx.GraphModule, prepared: fx.GraphModule, float_values: Collection[str]
) -> frozenset[str]:
    """The form's operators that a prepared module computes in integers, and what hands their integers on."""
    nodes = [node for node in prepared.graph.nodes if node.meta.get("integer")]
    computing = {str(node.meta.get("onnx")) for node in nodes} | {value_name(node) for node in nodes}
    moving = {str(node.meta.get("onnx")) for node in module.graph.nodes if is_move(node) or is_fused(module, node)}
    found: set[str] = set()
    for name, cost in form.costs.items():
        follows = name in moving and name not in float_values and not found.isdisjoint(cost.place.sources)
        if name in computing or follows:
            found.add(name)
    return frozenset(found)


def _fastest(
    model: onnx.ModelProto,
    assignments: list[Assignment],
    step: QuantizeStep,
    input_shape: tuple[int, int, int],
    threads: int,
    identity: str,
    nearness: Scorer | None,
    start: Start,
    on_progress: Progress | None,
) -> tuple[Assignment, Placement]:
    """Time all files against the model before, and choose."""
    files = {CANONICAL: model.SerializeToString(), **{one.name: one.file for one in assignments}}
    latencies = measure_latency(
        files,
        input_shape,
        threads=threads,
        rounds=ROUNDS,
        budget_s=BUDGET_S,
        on_progress=None if on_progress is None else lambda done, total, _: on_progress(done, total, "placement"),
    )
    tried = {name: found.median_ms for name, found in latencies.items()}
    best = min(assignments, key=lambda one: tried[one.name])
    scores: Mapping[str, float] = {}
    if step.optimize == "balanced":
        able = [one for one in assignments if tried[one.name] <= BALANCED * tried[best.name]]
        best = min(able, key=lambda one: (len(one.file), tried[one.name]))
    elif step.optimize == "accuracy" and nearness is not None:
        able = [one for one in assignments if tried[one.name] <= SLACK * tried[best.name]]
        if len(able) > 1:
            candidates = [Candidate(one.name, one.form.model, one.float_values) for one in able]
            scores = nearness.scores(candidates, start.percentile)
        best = min(able, key=lambda one: (-scores.get(one.name, 0.0), tried[one.name]))
    return best, Placement(
        fingerprint=identity,
        optimize=step.optimize,
        chosen=best.name,
        float_values=tuple(sorted(best.float_values)),
        regions=_regions(best),
        tried=tried,
        sizes={one.name: len(one.file) for one in assignments},
        padding={name: width for name, (_, width) in best.form.padding.items()},
        scores=dict(scores),
        percentile=start.percentile,
        ranges=dict(start.scores),
        resampled=best.resampled,
        notes=_notes(best),
        threads=threads,
        machine=_machine(),
    )


def _machine() -> dict[str, str]:
    """What times hold for, beside the number of threads."""
    here = machine_info()
    return {"cpu": here.cpu, "flags": " ".join(here.flags), "onnxruntime": here.versions.get("onnxruntime", "")}


def _check_machine(known: Placement, file: Path) -> None:
    """Refuse a choice that was timed elsewhere: what is fast there need not be fast here.

    Raises:
        ArtifactError: naming what differs.
    """
    for what, here in _machine().items():
        theirs = known.machine.get(what, "unknown")
        if theirs != here:
            raise ArtifactError(
                f"{file}: timed on another machine: {what} is {theirs or 'none'}, here {here or 'none'}. "
                "Go on there, or delete it to choose anew."
            )


def _integer_names(form: Form) -> frozenset[str]:
    """Operators of a form that can run in integers."""
    return frozenset(name for name, cost in form.costs.items() if cost.integer_time is not None)


def _regions(best: Assignment) -> tuple[Region, ...]:
    costs = best.form.costs
    why = "first or last in the network, or left in float by float_layers or float_budget"
    layers = ("Conv", "Gemm", "MatMul")
    fixed = {
        name: why for name, cost in costs.items() if cost.integer_time is None and cost.place.operator.op_type in layers
    }
    return describe(costs, costs.keys() - best.integer, fixed)


def _notes(best: Assignment) -> tuple[str, ...]:
    notes = []
    if not _integer_names(best.form):
        notes.append("no operator can run in integers: the network runs in float, its weights are stored as int8")
    elif not best.integer:
        notes.append("integers do not pay on this machine: the network runs in float, its weights are stored as int8")
    if best.form.padding:
        sets = ", ".join(f"{name} {before} -> {after}" for name, (before, after) in best.form.padding.items())
        notes.append(f"channels padded with zeros to what the kernels work on: {sets}")
    return tuple(notes)
