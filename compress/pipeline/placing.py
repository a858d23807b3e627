"""Choose what of a network runs in integers: by a table of operators' times, and then by timing whole files."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from torch import fx

from compress import artifacts
from compress.artifacts import Placement, fingerprint
from compress.export import export_int8
from compress.graph import to_torch
from compress.graph.lowering import lower_for_int8
from compress.measure.latency import measure_latency
from compress.measure.latency_table import LatencyTable
from compress.measure.machine import machine_info
from compress.measure.network_operators import Place, places_of
from compress.measure.operators import Operator, OperatorTime, Precision
from compress.measure.runtime import value_shapes
from compress.quant import prepare_qat
from compress.quant.placement import Costs, describe, fastest_placement, read_costs
from compress.quant.prepare import integer_nodes, is_fused, is_move, output_values, value_name
from compress.recipe import QuantizeStep

Progress = Callable[[int, int, str], None]

FAVOURS = (1.0, 0.85, 0.7, 1.2, 1.5)
"""By what times in integers are multiplied before the assignment of least time is sought: 1, and others, since the sum
of operators' times is only a model of the whole network's. Which one is best is measured."""
BALANCED = 1.05
"""`balanced` takes the smallest file of those that take at most so many times the fastest one's time."""
ROUNDS, BUDGET_S = 40, 20.0
"""Timed rounds of all files in turn, fewer if that takes longer."""
CANONICAL, ALL_INTEGER, ALL_FLOAT = "float32", "int8 throughout", "float throughout, int8 weights"


@dataclass(frozen=True)
class Lowered:
    """A network in the form that is quantised."""

    model: onnx.ModelProto
    float_values: tuple[str, ...]
    """What computes in float although integer kernels exist."""
    placement: Placement | None
    """How that was chosen; None for `size`, where nothing is."""


@dataclass(frozen=True)
class Assignment:
    """A name, what computes in float, and the int8 file that it would make, not yet calibrated."""

    name: str
    float_values: frozenset[str]
    file: bytes


def place(
    model: onnx.ModelProto,
    step: QuantizeStep,
    input_shape: tuple[int, int, int],
    float_layers: Callable[[fx.GraphModule], Collection[str]],
    *,
    file: Path | None = None,
    table: LatencyTable | None = None,
    on_progress: Progress | None = None,
) -> Lowered:
    """The lowered model that is quantised, and what of it runs in integers.

    Convolutions that compute an output stay in float: their rounding would be the output's.

    Args:
        model: canonical, float.
        step: its `optimize` says what to look for.
        input_shape: (C, H, W) of an image to time with.
        float_layers: names those layers of the lowered model that the user wants in float.
        file: where the choice is kept; one found there for the same model, settings and CPU is taken as it is, so that
            a run that goes on makes the same file.
        table: times of operators; the default is this machine's, in the user's cache folder.
        on_progress: called as (done, in all, message).

    Returns:
        The placement is None for `size`: everything that can runs in integers, and nothing is timed.
    """
    lowered = lower_for_int8(model, resample=step.optimize != "size")
    module = to_torch(lowered)
    outputs = output_values(module)
    if step.optimize == "size":
        return Lowered(lowered, tuple(sorted(outputs)), None)
    named = tuple(float_layers(module))
    identity = fingerprint(
        lowered.SerializeToString(deterministic=True),
        step.optimize,
        named,
        input_shape,
        step.weight_bits,
        step.recurrent,
        machine_info().cpu,
    )
    if file is not None and file.is_file():
        known = artifacts.load(Placement, file)
        if known.fingerprint == identity:
            return Lowered(lowered, known.float_values, known)
    costs, input_cost = _costs(lowered, module, named, input_shape, table or LatencyTable(), on_progress)
    assignments = _assignments(lowered, module, step, named, costs, input_cost, outputs)
    placement = _fastest(model, assignments, costs, step, input_shape, identity, on_progress)
    if file is not None:
        artifacts.save(placement, file)
    return Lowered(lowered, placement.float_values, placement)


def placement_lines(placement: Placement) -> tuple[str, ...]:
    """What a report says of a placement in a sentence or two."""
    machine = machine_info()
    baseline, chosen = placement.tried[CANONICAL], placement.tried[placement.chosen]
    line = (
        f"placement ({placement.optimize}): {placement.chosen}, {chosen:.2f} ms where the same network in float32 took "
        f"{baseline:.2f}; measured on {machine.cpu}, one thread, before calibration, of "
        + ", ".join(f"{name} {ms:.2f}" for name, ms in placement.tried.items() if name != CANONICAL)
    )
    return (line, *placement.notes)


def _costs(
    lowered: onnx.ModelProto,
    module: fx.GraphModule,
    float_layers: Collection[str],
    input_shape: tuple[int, int, int],
    table: LatencyTable,
    on_progress: Progress | None,
) -> tuple[dict[str, Costs], float]:
    """What every operator costs, and quantising the input."""
    places = places_of(lowered, input_shape)
    integer = integer_nodes(module, float_layers)
    nodes = [*integer, *(node for node in module.graph.nodes if is_move(node) or is_fused(module, node))]
    able = {node.meta.get("onnx") for node in nodes} | {value_name(node) for node in nodes}
    able -= output_values(module)
    timed = _Reporting(table, 2 * len(places), on_progress)
    shapes = _output_shapes(lowered, places, input_shape)
    found = read_costs(places, able & set(places), shapes, timed)
    table.save()
    return found, table.boundary((1, *input_shape), to="int8")


def _output_shapes(
    lowered: onnx.ModelProto, places: Mapping[str, Place], input_shape: tuple[int, int, int]
) -> dict[str, tuple[int, ...]]:
    outputs = {node.name: next(name for name in node.output if name) for node in lowered.graph.node}
    images = np.zeros((1, *input_shape), np.float32)
    found = value_shapes(lowered, sorted(outputs[name] for name in places), images)
    return {name: found[outputs[name]] for name in places}


def _assignments(
    lowered: onnx.ModelProto,
    module: fx.GraphModule,
    step: QuantizeStep,
    float_layers: Collection[str],
    costs: Mapping[str, Costs],
    input_cost: float,
    outputs: Collection[str],
) -> list[Assignment]:
    """Different files to time: what the table finds fastest, all in integers, all in float."""
    able = frozenset(name for name, cost in costs.items() if cost.integer_time is not None)
    wanted = {ALL_INTEGER: frozenset[str](), ALL_FLOAT: able}
    for favour in FAVOURS:
        name = "by the table" if favour == 1 else f"by the table, integers taken for {favour:g}x as slow"
        wanted[name] = fastest_placement(costs, input_cost, favour) & able
    found: list[Assignment] = []
    for name, chosen in wanted.items():
        values = chosen | set(outputs)
        prepared = prepare_qat(
            module, float_layers=float_layers, float_values=values, weight_bits=step.weight_bits,
            asymmetric_hard_swish=step.pact.asymmetric_hardswish,
        )  # fmt: skip
        form = "weights" if step.recurrent == "auto" else step.recurrent
        made = export_int8(prepared, lowered, recurrent=form, weight_bits=step.weight_bits).model
        data = made.SerializeToString(deterministic=True)
        if all(data != other.file for other in found):
            found.append(Assignment(name, values, data))
    return found


def _fastest(
    model: onnx.ModelProto,
    assignments: list[Assignment],
    costs: Mapping[str, Costs],
    step: QuantizeStep,
    input_shape: tuple[int, int, int],
    identity: str,
    on_progress: Progress | None,
) -> Placement:
    """Time all files against the model before, and choose."""
    files = {CANONICAL: model.SerializeToString(), **{one.name: one.file for one in assignments}}
    latencies = measure_latency(
        files,
        input_shape,
        rounds=ROUNDS,
        budget_s=BUDGET_S,
        on_progress=None if on_progress is None else lambda done, total, _: on_progress(done, total, "placement"),
    )
    tried = {name: found.median_ms for name, found in latencies.items()}
    best = min(assignments, key=lambda one: tried[one.name])
    if step.optimize == "balanced":
        able = [one for one in assignments if tried[one.name] <= BALANCED * tried[best.name]]
        best = min(able, key=lambda one: (len(one.file), tried[one.name]))
    fixed = {name: "first or last in the network, or named in float_layers" for name, cost in costs.items()
             if cost.integer_time is None and cost.place.operator.op_type in ("Conv", "Gemm", "MatMul")}  # fmt: skip
    notes: tuple[str, ...] = ()
    if best.name == ALL_FLOAT:
        notes = ("integers do not pay on this machine: the network runs in float, its weights are stored as int8",)
    return Placement(
        fingerprint=identity,
        optimize=step.optimize,
        chosen=best.name,
        float_values=tuple(sorted(best.float_values)),
        regions=describe(costs, best.float_values, fixed),
        tried=tried,
        sizes={one.name: len(one.file) for one in assignments},
        notes=notes,
    )


class _Reporting:
    """A latency table that says how far it is."""

    def __init__(self, table: LatencyTable, total: int, on_progress: Progress | None) -> None:
        self._table, self._total, self._on_progress, self._done = table, total, on_progress, 0

    def time(self, operator: Operator) -> OperatorTime:
        """As the table's."""
        self._done = min(self._done + 1, self._total)
        if self._on_progress is not None:
            self._on_progress(self._done, self._total, "timing operators")
        return self._table.time(operator)

    def boundary(self, shape: tuple[int, ...], *, to: Precision) -> float:
        """As the table's."""
        return self._table.boundary(shape, to=to)
