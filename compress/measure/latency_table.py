"""Times of operators on this machine, measured when they are first requested and kept in a file.

The file names the CPU, its flags, onnxruntime's version and the number of threads, and is refused where they differ.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Literal

from compress import artifacts
from compress.artifacts import Machine, cache_folder
from compress.artifacts.cache import CACHE_VARIABLE
from compress.errors import ArtifactError, OutputError
from compress.measure.machine import machine_info
from compress.measure.operator_times import Operator, OperatorTime, measure_operator

"""Environment variable that names the folder of tables."""
SAVE_EVERY_S = 1.0
"""Between two savings while operators are measured; what is lost when the program is killed."""
STALE = 1.3
"""Times from when a reference operator took so many times its best are measured again by the next program."""
Measure = Callable[[Operator, int], OperatorTime]


@dataclass(frozen=True)
class StoredTable:
    """The file: where its times hold, and the milliseconds of each operator: own kernels, before, after, gauge."""

    cpu: str
    flags: tuple[str, ...]
    onnxruntime: str
    threads: int
    times: dict[str, tuple[float, ...]]
    version: int = artifacts.VERSION


class LatencyTable:
    """Milliseconds of operators on this machine.

    Args:
        path: the table's file; by default one for this CPU, onnxruntime and number of threads in `cache_folder()`.
        threads: onnxruntime threads the times are of.
        machine: where they hold; this machine by default.
        measure: times an operator with so many threads; `measure_operator` by default.
        on_note: told once if the file cannot be written: all works, and is measured again next time.

    Raises:
        ArtifactError: the file is of another CPU, onnxruntime or number of threads, or is damaged.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        threads: int = 1,
        machine: Machine | None = None,
        measure: Measure | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        here = machine or machine_info()
        self._empty = StoredTable(here.cpu, here.flags, here.versions.get("onnxruntime", ""), threads, {})
        self.path = path or default_path(self._empty)
        self.measured = 0
        """Operators timed by this table, not read from its file."""
        self.measuring_s = 0.0
        self._measure, self._on_note = measure or measure_operator, on_note or _say
        self._times = self._stored()
        self._unsaved: dict[str, OperatorTime] = {}
        self._saved_at = time.monotonic()
        self._writable = True

    def time(self, operator: Operator) -> OperatorTime:
        """Milliseconds of an operator, measured if the table does not hold them.

        Raises:
            ModelError: onnxruntime does not run it.
        """
        key = key_of(operator)
        if key not in self._times:
            start = time.monotonic()
            try:
                found = self._measure(operator, self._empty.threads)
            except BaseException:  # Ctrl-C included: what was measured before stays
                self.save()
                raise
            self._times[key] = self._unsaved[key] = found
            self.measured += 1
            self.measuring_s += time.monotonic() - start
            if time.monotonic() - self._saved_at >= SAVE_EVERY_S:
                self.save()
        return self._times[key]

    def boundary(self, shape: tuple[int, ...], *, to: Literal["int8", "float32"]) -> float:
        """Milliseconds of taking a tensor of this shape from float32 `to` int8 (QuantizeLinear), or back."""
        op_type = "QuantizeLinear" if to == "int8" else "DequantizeLinear"
        return self.time(Operator(op_type, (shape,))).kernel_ms

    def save(self) -> None:
        """Write what is new to the file, beside what another program put there meanwhile."""
        self._saved_at = time.monotonic()
        if not self._unsaved or not self._writable:
            return
        merged = {key: astuple(value) for key, value in (self._stored() | self._times).items()}
        try:
            artifacts.save(StoredTable(**{**asdict(self._empty), "times": merged}), self.path)
        except OutputError:
            self._writable = False
            self._on_note(
                f"{self.path}: cannot be written, so operators are timed again next time. "
                f"Name a folder you may write to in {CACHE_VARIABLE}."
            )
        self._unsaved.clear()

    def _stored(self) -> dict[str, OperatorTime]:
        if not self.path.is_file():
            return {}
        found = artifacts.load(StoredTable, self.path)
        for what in ("cpu", "flags", "onnxruntime", "threads"):
            theirs, ours = getattr(found, what), getattr(self._empty, what)
            if theirs != ours:
                raise ArtifactError(
                    f"{self.path}: times of another machine: {what} is {_shown(theirs)}, here {_shown(ours)}. "
                    f"Delete it, or name another folder in {CACHE_VARIABLE}."
                )
        times = {key: OperatorTime(*values) for key, values in found.times.items()}
        best = min((value.gauge_ms for value in times.values()), default=0.0)
        return {key: value for key, value in times.items() if value.gauge_ms <= STALE * best}


def key_of(operator: Operator) -> str:
    """The operator as text: what its time is kept under.

    >>> key_of(Operator("Conv", ((1, 8, 4, 4),), (16, 8, 1, 1), (("strides", (2, 2)),), "Relu"))
    'Conv 1x8x4x4 weight=16x8x1x1 strides=2,2 +Relu float32'
    """
    parts = [operator.op_type, *("x".join(map(str, shape)) or "scalar" for shape in operator.inputs)]
    if operator.weight:
        parts.append("weight=" + "x".join(map(str, operator.weight)))
    parts += [f"{name}={_value(value)}" for name, value in sorted(operator.attributes)]
    parts += [f"+{operator.activation}"] if operator.activation else []
    return " ".join([*parts, operator.precision])


def default_path(table: StoredTable) -> Path:
    """The file of tables of this CPU, onnxruntime and number of threads."""
    identity = artifacts.fingerprint(table.cpu, table.flags, table.onnxruntime, table.threads)
    return cache_folder() / f"latency-{identity[:12]}.json"


def _value(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _shown(value: object) -> str:
    return " ".join(value) or "none" if isinstance(value, tuple) else str(value) or "unknown"


def _say(text: str) -> None:
    print(text, file=sys.stderr)
