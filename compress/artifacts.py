"""The results that stages hand to each other: frozen values, stored as versioned JSON.

Every artefact carries a `fingerprint` of what it was computed from (model, data, metric and settings),
so that a stale file is refused instead of silently reused, and is written atomically, so that a killed
run leaves either the old file or the new one, never half of one.
"""

import dataclasses
import hashlib
import json
import os
import tempfile
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from compress.errors import ArtifactError, OutputError

VERSION = 1
T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """What a model costs. `macs`: multiply-adds (one multiply-add = 1) for one image of `input_shape`."""

    params: int
    macs: int
    size_bytes: int
    input_shape: tuple[int, ...]
    uncounted: tuple[str, ...] = ()
    """Operators with arithmetic that `macs` leaves out (pooling, activations, ...), named once each."""


@dataclass(frozen=True)
class Latency:
    """Wall time of one forward pass in milliseconds: median and the 10th and 90th percentile."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    threads: int
    runs: int
    speedup: float | None = None
    """Baseline's median / this median, of the same interleaved run."""


@dataclass(frozen=True)
class Score:
    """How good a model is. `metric` is higher-is-better, in [0, 1]; `details` holds further named figures."""

    metric: float
    name: str
    count: int
    details: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Curve:
    """One group's sensitivity: the metric at each pruning ratio, others untouched, no retraining."""

    channels: int
    layers: tuple[str, ...]
    macs: int
    metric: dict[str, float]
    """Ratio (as `f"{ratio:g}"`) -> metric of the model with that share of the group removed."""


@dataclass(frozen=True)
class Sensitivity:
    """Metric per channel group and pruning ratio (Li et al. 2016). May be partial while a scan runs."""

    fingerprint: str
    criterion: str
    metric_name: str
    baseline: float
    ratios: tuple[float, ...]
    curves: dict[str, Curve]
    version: int = VERSION


@dataclass(frozen=True)
class GroupPlan:
    """What happens to one channel group: `removed` are channel indices of its root layer."""

    channels: int
    layers: tuple[str, ...]
    pruning_ratio_asked: float
    pruning_ratio: float
    removed: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True)
class PruningPlan:
    """The exact channels to remove, per group; stored, never recomputed."""

    fingerprint: str
    criterion: str
    align: int
    target: dict[str, float]
    """How the ratios were chosen: {"ratio": r}, {"metric_drop": t} or {"macs": share}."""
    macs_before: int
    macs_after: int
    params_before: int
    params_after: int
    groups: dict[str, GroupPlan]
    notes: tuple[str, ...] = ()
    version: int = VERSION


@dataclass(frozen=True)
class Parity:
    """How far an exported file is from the model it came from, on the same images."""

    max_abs: float
    mean_abs: float
    max_abs_optimised: float
    mean_abs_optimised: float
    agreement: float
    """Share of images with the same arg-max (optimisation on)."""
    tolerance: float
    """Largest allowed difference of an integer tensor, in steps of its scale."""
    count: int
    max_steps: float = 0.0
    """Largest difference of any integer tensor, each recomputed from the file's own inputs to it; optimisation off."""
    max_steps_optimised: float = 0.0


@dataclass(frozen=True)
class Quantized:
    """What exporting an int8 file came to: how far it is from its network, and what was chosen on the way."""

    parity: Parity
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StageResult:
    """One stage of a run (`baseline`, `pruned`, `finetuned`, `int8`) and everything measured of its file."""

    stage: str
    file: str
    cost: Cost
    score: Score
    latency: Latency | None = None
    parity: Parity | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gate:
    """One requirement of a recipe, and whether the result meets it."""

    name: str
    required: float
    measured: float
    passed: bool


@dataclass(frozen=True)
class Machine:
    """Where figures were measured."""

    cpu: str
    flags: tuple[str, ...]
    cores: int
    os: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Report:
    """A whole run: its stages in order, the machine, the gates, and what to know about it."""

    title: str
    command: str
    date: str
    machine: Machine
    stages: tuple[StageResult, ...]
    gates: tuple[Gate, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    plan: dict[str, dict[str, float]] = field(default_factory=dict)
    """Group -> {"channels", "kept", "pruning_ratio"}."""
    version: int = VERSION


def fingerprint(*parts: object) -> str:
    """Hash what an artefact depends on; bytes are hashed as they are, anything else as sorted JSON.

    >>> fingerprint("a", {"x": 1, "y": 2}) == fingerprint("a", {"y": 2, "x": 1})
    True
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, default=str).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, making its folder if need be.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}). Choose a folder you may write to with --out."
        ) from error


def to_json(artefact: Any) -> str:
    """The artefact as JSON text: same value, same text, byte for byte."""
    return json.dumps(dataclasses.asdict(artefact), indent=1, sort_keys=True) + "\n"


def save(artefact: Any, path: Path) -> None:
    """Store an artefact as JSON, atomically."""
    write_atomic(path, to_json(artefact).encode())


def load(kind: type[T], path: Path) -> T:
    """Read an artefact back.

    Raises:
        ArtifactError: the file is missing, is not JSON, has another version, or lacks or adds fields.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file. Expected a {kind.__name__} as JSON.") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: not readable as JSON ({error}). Delete it to compute it again.") from error
    if not isinstance(data, dict) or data.get("version", VERSION) != VERSION:
        found = data.get("version") if isinstance(data, dict) else type(data).__name__
        raise ArtifactError(f"{path}: version {found!r}, this program reads {VERSION}. Delete it to compute it again.")
    try:
        value = _build(kind, data)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path}: not a {kind.__name__} ({error}). Delete it to compute it again.") from error
    return typing.cast(T, value)


def check_fresh(path: Path, found: str, expected: str) -> None:
    """Refuse an artefact that was computed from something else.

    Raises:
        ArtifactError: the fingerprints differ.
    """
    if found != expected:
        raise ArtifactError(
            f"{path}: stale: computed from another model, data or settings (fingerprint {found}, now {expected}). "
            "Delete it, or choose another --out folder."
        )


def _build(kind: Any, data: Any) -> Any:
    """Rebuild a value of the annotated type `kind` from plain JSON data."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        choices = [choice for choice in typing.get_args(kind) if choice is not type(None)]
        return None if data is None else _build(choices[0], data)
    if dataclasses.is_dataclass(kind):
        if not isinstance(data, Mapping):
            raise TypeError(f"expected an object for {kind}, got {data!r}")
        hints = typing.get_type_hints(kind)
        unknown = set(data) - set(hints)
        if unknown:
            raise TypeError(f"unknown fields {sorted(unknown)}")
        return kind(**{name: _build(hints[name], value) for name, value in data.items()})  # type: ignore[operator]
    if origin is tuple:
        return tuple(_build(typing.get_args(kind)[0], item) for item in data)
    if origin is dict:
        return {key: _build(typing.get_args(kind)[1], value) for key, value in data.items()}
    if kind is float:
        return float(data)
    if not isinstance(data, kind):
        raise TypeError(f"expected {kind.__name__}, got {data!r}")
    return data
