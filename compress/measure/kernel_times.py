"""Times of the kernels that onnxruntime makes of a model, by its profiler."""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compress.errors import ModelError
from compress.measure.session import first_line, name_of, session_options, start_session


@dataclass(frozen=True)
class Kernel:
    """One kernel that onnxruntime ran for a model: its type, its node's name, and its milliseconds in each run."""

    op_type: str
    name: str
    times_ms: tuple[float, ...]


def profile(
    model: onnx.ModelProto,
    feeds: Mapping[str, np.ndarray],
    *,
    threads: int = 1,
    warmup: int = 5,
    runs: tuple[int, int] = (10, 30),
    budget_s: float = 0.06,
) -> list[Kernel]:
    """Time the kernels that onnxruntime makes of a model, with all its optimisation, in the order in which they run.

    Args:
        model: of any inputs; not larger than a file may be (2 GB).
        feeds: input name -> array.
        threads: intra-operator threads.
        warmup: runs that do not count; the last of them tells how long one takes.
        runs: the fewest and the most that count.
        budget_s: as many as fit into this are made, within `runs`.

    Raises:
        ModelError: onnxruntime rejects the model, or fails to run it.
    """
    options = session_options(threads)
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        try:
            session = start_session(model, options)
            start = end = time.perf_counter()
            for _ in range(warmup):
                start = time.perf_counter()
                session.run(None, dict(feeds))
                end = time.perf_counter()
            for _ in range(min(runs[1], max(runs[0], int(budget_s / max(end - start, 1e-6))))):
                session.run(None, dict(feeds))
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        except Exception as error:
            raise ModelError(f"{name_of(model)}: onnxruntime cannot time it: {first_line(error)}") from error
    return _kernels(events, warmup)


def _kernels(events: Sequence[Mapping[str, Any]], warmup: int) -> list[Kernel]:
    """What a profile says of kernels; its clock ticks in microseconds."""
    suffix = "_kernel_time"
    found: dict[str, tuple[str, list[float]]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(suffix):
            kernel = found.setdefault(event["name"].removesuffix(suffix), (event["args"]["op_name"], []))
            kernel[1].append(event["dur"] / 1000.0)
    return [Kernel(op_type, name, tuple(times[warmup:])) for name, (op_type, times) in found.items()]
