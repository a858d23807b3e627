"""The operators of a network that is being pruned, and their times from a table."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import onnx
from torch import nn

from compress.errors import ModelError
from compress.graph import to_onnx
from compress.graph.lowering import lower_for_int8
from compress.measure.latency_table import LatencyTable
from compress.measure.network_operators import Kernels, Place, places_of, predicted_ms
from compress.pipeline.models import as_graph_module
from compress.progress import Progress
from compress.prune.pruned_time import Timing


def table_timing(
    model: onnx.ModelProto,
    input_shape: tuple[int, int, int],
    table: LatencyTable,
    kernels: Kernels,
    on_progress: Progress | None = None,
) -> Timing:
    """How the time of a module that was imported from `model` is predicted, pruned or not.

    What will be quantised is timed in the form that is quantised, where upsampled tensors are convolved small.
    """

    def places(module: nn.Module) -> dict[str, Place]:
        exported = to_onnx(as_graph_module(module), model)
        return places_of(lower_for_int8(exported) if kernels == "mixed" else exported, input_shape)

    return Timing(places, table, kernels, on_progress)


def is_timed(module: nn.Module, timing: Timing, on_note: Callable[[str], None] | None) -> bool:
    """Time the operators of the whole network; where one of them does not run alone, say so and do without."""
    try:
        predicted_ms(timing.places(module), timing.table, timing.precision)
    except ModelError as error:
        if on_note is not None:
            on_note(f"The plan says nothing of latency: {error}")
        return False
    return True


@contextmanager
def saved_times(table: LatencyTable, on_note: Callable[[str], None] | None) -> Iterator[None]:
    """Keep what the block measures, however it ends, and say how long that took if it was long."""
    try:
        yield
    finally:
        table.save()
        if on_note is not None and table.measuring_s >= 1.0:
            on_note(f"Timed {table.measured} operators in {table.measuring_s:.0f} s; {table.path} keeps them.")
