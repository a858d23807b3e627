"""Which operators run in integers and which in float, chosen by the times that they take on this machine.

The time of a network is taken for a sum: of each operator's own kernels in the type it runs in, and of what lies
between neighbours of different types (QuantizeLinear, DequantizeLinear, changes of layout), paid once for a tensor
however many read it. The assignment of least time is a minimum cut of a graph whose nodes are the operators: what is
left on the source's side runs in integers, what falls to the sink's side in float (Greig, Porteous and Seheult 1989).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from compress.artifacts import Region
from compress.measure.network_operators import Place, Times, is_free, with_precision
from compress.measure.operator_times import OperatorTime

if TYPE_CHECKING:
    import networkx as nx

INTEGER, FLOAT = "int8", "float32"
_ALONE = 1e-4
"""Milliseconds under which two times count as the same."""


@dataclass(frozen=True)
class Costs:
    """What one operator costs in milliseconds, and what changing the type of its output does."""

    place: Place
    float_time: OperatorTime
    integer_time: OperatorTime | None
    """None where it can run in float only."""
    to_integer: float
    """Its output from float to integers, of any layout to any."""
    to_float: float


def read_costs(places: Mapping[str, Place], integer: Collection[str], times: Times) -> dict[str, Costs]:
    """Look every operator up; what nobody reads needs no conversion.

    Args:
        places: the network's operators.
        integer: names of those that may run in integers.
        times: a latency table.
    """
    read = {
        source: shape
        for place in places.values()
        for source, shape in zip(place.sources, place.operator.inputs, strict=True)
    }
    found = {}
    for name, place in places.items():
        float_time = times.time(place.operator)
        integer_time = None
        if name in integer:
            operator = with_precision(place.operator, "int8")
            integer_time = OperatorTime(0.0) if is_free(place, operator) else times.time(operator)
        layout = 0.0 if integer_time is None else integer_time.after_ms
        shape = read.get(name)
        found[name] = Costs(
            place,
            OperatorTime(0.0) if is_free(place, place.operator) else float_time,
            integer_time,
            to_integer=0.0 if shape is None else times.boundary(shape, to="int8") + float_time.after_ms,
            to_float=0.0 if shape is None else times.boundary(shape, to="float32") + layout,
        )
    return found


def fastest_placement(costs: Mapping[str, Costs], input_cost: float = 0.0, favour: float = 1.0) -> frozenset[str]:
    """Names of the operators that run in float in the assignment of least time (see `least_time`)."""
    return least_time(costs, input_cost, favour)[1]


def least_time(
    costs: Mapping[str, Costs], input_cost: float = 0.0, favour: float = 1.0
) -> tuple[float, frozenset[str]]:
    """The assignment of least time: its milliseconds, and the names of the operators that run in float.

    Args:
        costs: from `read_costs`, in the order of the network.
        input_cost: milliseconds to quantise the network's input.
        favour: times in integers are multiplied by this first: other assignments to try, since the sum is a model.
    """
    import networkx as nx  # a third of a second, and needed here only

    graph = nx.DiGraph()
    graph.add_node("source")
    for name, cost in costs.items():
        own = _names(name)
        _add(graph, own, "sink", favour * cost.integer_time.kernel_ms if cost.integer_time else float("inf"))
        _add(graph, "source", own, cost.float_time.kernel_ms + _float_entry(cost, costs))
    _add(graph, _names(""), "sink", float("inf"))  # the input is float
    readers: dict[str, list[str]] = {}
    for name, cost in costs.items():
        for source in cost.place.sources:
            readers.setdefault(source, []).append(name)
    for source, users in readers.items():
        to_integer = input_cost if source == "" else costs[source].to_integer
        to_float = 0.0 if source == "" else costs[source].to_float
        _add_boundary(graph, source, users, to_integer, to_float)
    least, (kept, _) = nx.minimum_cut(graph, "source", "sink", capacity="ms")
    return float(least), frozenset(name for name in costs if _names(name) not in kept)


def describe(costs: Mapping[str, Costs], chosen_float: Collection[str], fixed: Mapping[str, str]) -> tuple[Region, ...]:
    """The network as regions, runs of operators of one type in the order of the graph, each with its reason.

    Args:
        costs: from `read_costs`.
        chosen_float: what runs in float.
        fixed: operators that could not be chosen -> why.
    """
    regions: list[list[str]] = []
    for name in costs:
        if regions and _is_float(regions[-1][0], costs, chosen_float) == _is_float(name, costs, chosen_float):
            regions[-1].append(name)
        else:
            regions.append([name])
    return tuple(_region(names, costs, chosen_float, fixed) for names in regions)


def _region(
    names: list[str], costs: Mapping[str, Costs], chosen_float: Collection[str], fixed: Mapping[str, str]
) -> Region:
    is_float = _is_float(names[0], costs, chosen_float)
    float_ms = sum(costs[name].float_time.kernel_ms for name in names)
    timed = [costs[name].integer_time for name in names]
    integer_ms = sum(found.kernel_ms for found in timed if found is not None)
    unable = [name for name in names if costs[name].integer_time is None]
    if len(unable) == len(names):
        reason = "; ".join(sorted({fixed.get(name, "no integer kernel") for name in unable}))
    else:
        comparable = sum(costs[name].float_time.kernel_ms for name in names if name not in unable)
        reason = _reason(is_float, comparable, integer_ms)
    return Region(
        first=names[0],
        last=names[-1],
        operators=len(names),
        precision=FLOAT if is_float else INTEGER,
        float_ms=float_ms,
        int8_ms=None if len(unable) == len(names) else integer_ms,
        reason=reason,
    )


def _reason(is_float: bool, float_ms: float, integer_ms: float) -> str:
    if is_float and float_ms <= integer_ms + _ALONE:
        return "its float kernels are faster"
    if is_float:
        return "its integer kernels are faster, but not by what changing type twice takes"
    if integer_ms <= float_ms + _ALONE:
        return "its integer kernels are faster"
    return "its float kernels are faster, but not by what changing type twice takes"


def _is_float(name: str, costs: Mapping[str, Costs], chosen_float: Collection[str]) -> bool:
    return name in chosen_float or costs[name].integer_time is None


def _float_entry(cost: Costs, costs: Mapping[str, Costs]) -> float:
    """Layout changes that an operator without a blocked form brings about between float convolutions."""
    time = cost.float_time
    if time.before_ms or time.after_ms or cost.place.rides_along:
        return 0.0
    return sum(costs[source].float_time.after_ms for source in cost.place.sources if source)


def _add_boundary(graph: "nx.DiGraph", source: str, users: Iterable[str], to_integer: float, to_float: float) -> None:
    """A tensor is converted once, whatever the number of its readers: two more nodes stand for "any of them"."""
    any_float, any_integer = ("float", source), ("integer", source)
    _add(graph, _names(source), any_float, to_float)
    _add(graph, any_integer, _names(source), to_integer)
    for user in users:
        _add(graph, any_float, _names(user), float("inf"))
        _add(graph, _names(user), any_integer, float("inf"))


def _names(name: str) -> tuple[Literal["operator"], str]:
    """A place as a node of the graph that is cut."""
    return ("operator", name)


def _add(graph: "nx.DiGraph", before: object, after: object, ms: float) -> None:
    known = graph.edges[before, after]["ms"] if graph.has_edge(before, after) else 0.0
    graph.add_edge(before, after, ms=known + ms)
