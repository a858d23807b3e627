"""Times of single operators: each runs alone in onnxruntime, with its profiler on.

An operator's time depends on its shapes in ways that multiply-adds do not tell: kernels work on blocks of 8 or 16
channels, depthwise convolutions are slow in int8, some operators have no integer kernel at all. So it is measured: a
model of this one operator, float32 or in QDQ form with uint8 ends, of which onnxruntime makes the kernels that it makes
of the whole network. Layouts are the exception: a lone convolution brings layout changes with it that a run of
convolutions pays once, at its ends, so these are kept apart.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx

from compress.measure.kernel_times import Kernel, profile
from compress.measure.latency import time_interleaved
from compress.measure.micro_model import END, chain_model, micro_model, random_feeds
from compress.measure.session import Session

Precision = Literal["float32", "int8"]
Activation = Literal["", "Relu", "Clip6", "HardSigmoid", "HardSwish"]
LEAST_MS = 0.0002
"""A kernel takes some time, though the profiler's own may hide it."""
_CHAIN = 100
ATTEMPTS = 3
SLOW = 1.2
"""A reference operator that takes so many times its best says that something else runs."""
LAYOUT_CHANGES = frozenset(("Transpose", "ReorderInput", "ReorderOutput"))


@dataclass(frozen=True)
class Operator:
    """One operator with all that its time depends on."""

    op_type: str
    """An ONNX operator (opset 17); QuantizeLinear and DequantizeLinear are those of a whole tensor."""
    inputs: tuple[tuple[int, ...], ...]
    """Shapes of the tensors it computes from."""
    weight: tuple[int, ...] = ()
    """Shape of its weight, or of the other constant it computes with; of a recurrent layer that of W."""
    attributes: tuple[tuple[str, Any], ...] = ()
    """Sorted; integers, floats, texts, tuples of numbers. Constant inputs that say how to compute (the scales of
    Resize, the starts of Slice) are here by their name."""
    activation: Activation = ""
    """What runs fused behind it. `Clip6` is Clip(0, 6)."""
    precision: Precision = "float32"


@dataclass(frozen=True)
class OperatorTime:
    """Milliseconds of one operator: its own kernels, and changes of layout in front of it and behind it.

    Runs of operators in one layout pay `before_ms` once, at the first, and `after_ms` at the last.
    """

    kernel_ms: float
    before_ms: float = 0.0
    after_ms: float = 0.0
    gauge_ms: float = 0.0
    """What a reference operator took just then: how fast the machine was. 0 if nothing was measured."""


def measure_operator(operator: Operator, threads: int = 1) -> OperatorTime:
    """Time one operator on this machine: about 30 runs after 5, at least 10 of a slow one.

    Other programs can slow a machine down for seconds. A reference operator tells: where it takes longer than it did
    at best, the operator is measured again, up to three times in all, and the fastest counts.

    Raises:
        ModelError: onnxruntime has no such operator, or not for these shapes.
    """
    model = operator_model(operator)
    feeds, gauge, overhead = random_feeds(model), machine_gauge(threads), profiler_ms(threads)
    found: list[OperatorTime] = []
    for _ in range(ATTEMPTS):
        before = gauge.read()
        times = classify(operator.op_type, profile(model, feeds, threads=threads), overhead)
        speed = max(before, gauge.read())
        found.append(replace(times, gauge_ms=speed))
        if speed <= SLOW * gauge.best_ms:
            break
    return min(found, key=lambda times: times.kernel_ms + times.before_ms + times.after_ms)


class Gauge:
    """A reference operator, timed again and again: how fast the machine is just now."""

    def __init__(self, threads: int) -> None:
        model = operator_model(Operator("Conv", ((1, 64, 20, 20),), (64, 64, 1, 1)))
        self._session, (self._image,) = Session(model, threads=threads), random_feeds(model).values()
        self.best_ms = math.inf

    def read(self) -> float:
        """Milliseconds of the operator now."""
        times = time_interleaved({"gauge": lambda: self._session.run(self._image)}, rounds=10)["gauge"]
        now = faster_mean(times)
        self.best_ms = min(self.best_ms, now)
        return now


@functools.cache
def machine_gauge(threads: int) -> Gauge:
    """The one gauge of this program, which remembers the best."""
    gauge = Gauge(threads)
    for _ in range(5):
        gauge.read()
    return gauge


def operator_model(operator: Operator) -> onnx.ModelProto:
    """The model of one operator that is timed."""
    return micro_model(
        operator.op_type,
        operator.inputs,
        operator.weight,
        dict(operator.attributes),
        operator.activation,
        integer=operator.precision == "int8",
    )


def classify(op_type: str, kernels: Sequence[Kernel], overhead_ms: float = 0.0) -> OperatorTime:
    """Tell an operator's own kernels, in the order in which they ran, from the layout changes around them.

    `overhead_ms` is taken off each kernel's time, but not all of it.

    >>> ran = [Kernel("ReorderInput", "a", (0.5,)), Kernel("Conv", "b", (2.0,)), Kernel("ReorderOutput", "c", (1.0,))]
    >>> classify("Conv", ran)
    OperatorTime(kernel_ms=2.0, before_ms=0.5, after_ms=1.0, gauge_ms=0.0)
    """
    parts = {"before_ms": 0.0, "kernel_ms": 0.0, "after_ms": 0.0}
    for kernel in kernels:
        if kernel.name == END:
            continue
        part = "kernel_ms"
        if kernel.op_type in LAYOUT_CHANGES and op_type not in LAYOUT_CHANGES:
            part = "after_ms" if parts["kernel_ms"] > 0 else "before_ms"
        parts[part] += max(LEAST_MS, faster_mean(kernel.times_ms) - overhead_ms)
    return OperatorTime(**parts)


def faster_mean(values: Sequence[float]) -> float:
    """Mean of the faster half: what disturbs a run only ever slows it, and a mean is finer than the profiler's ticks.

    >>> faster_mean([1.0, 2.0, 3.0, 100.0])
    1.5
    """
    ordered = np.sort(np.asarray(values, np.float64))
    return float(ordered[: (len(ordered) + 1) // 2].mean())


@functools.cache
def profiler_ms(threads: int = 1) -> float:
    """Milliseconds that the profiler adds to each kernel: some microseconds, as much as a small kernel takes itself.

    A chain of tiny operators is timed kernel by kernel and, without the profiler, as a whole.
    """
    model = chain_model(_CHAIN)
    feeds = random_feeds(model)
    profiled = sum(faster_mean(kernel.times_ms) for kernel in profile(model, feeds, threads=threads))
    session, (image,) = Session(model, threads=threads), feeds.values()
    times = time_interleaved({"chain": lambda: session.run(image)}, rounds=_CHAIN)["chain"]
    return max(0.0, profiled - faster_mean(times)) / _CHAIN
