"""Artefacts as JSON files: versioned, written whole or not at all, refused when stale."""

import dataclasses
import glob
import hashlib
import itertools
import json
import os
import tempfile
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from compress.errors import ArtifactError, OutputError, StaleError, advice_to_write

VERSION = 1
PARTIAL = ".partial"
"""End of a file's name while it is written, behind the process's number (see `remove_partial`)."""
CHECKSUM = "checksum"
"""Key of a stored artefact that tells a file as it was written from one that was edited."""
NEWER = {
    "Sensitivity": "model",
    "PruningPlan": "model",
    "Record": "beside",
    "Report": "scan",
    "Placement": "threads",
    "Scored": "fingerprint",
    "Code": "modules",
    "Labels": "fingerprint",
}
"""Kind -> a field that is no older than checksums: whatever wrote it wrote a checksum, too."""
T = TypeVar("T")


def fingerprint(*parts: object) -> str:
    """Hash what an artefact depends on; bytes are hashed as they are, anything else as sorted JSON.

    >>> fingerprint("a", {"x": 1, "y": 2}) == fingerprint("a", {"y": 2, "x": 1})
    True
    """
    return fingerprint_each(parts)


def fingerprint_each(parts: Iterable[object]) -> str:
    """`fingerprint` of parts that are made one by one: they need not be in memory together."""
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
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.{os.getpid()}-", suffix=PARTIAL)
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
        advice = advice_to_write(error, "Choose a folder you may write to with --out.")
        raise OutputError(f"{path}: cannot be written ({error.strerror}). {advice}") from error


def set_aside(file: Path) -> Path:
    """Rename a file that is to be replaced and that the user may have changed; returns what it is called now."""
    numbers = itertools.chain([""], itertools.count(2))
    names = (file.with_name(f"{file.stem}.old{number}{file.suffix}") for number in numbers)
    return file.replace(next(name for name in names if not name.exists()))


def remove_partial(path: Path, process: int) -> None:
    """Remove what a killed process left half-written of a result.

    Of a file that is the file's own; of a folder, what is in it and in the folders directly in it.
    """
    if path.is_dir():
        found = [left for inside in ("", "*/") for left in path.glob(f"{inside}.*.{process}-*{PARTIAL}")]
    else:
        found = list(path.parent.glob(f".{glob.escape(path.name)}.{process}-*{PARTIAL}"))
    for left in found:
        left.unlink(missing_ok=True)


def check_writable(folder: Path, option: str = "--out") -> None:
    """Find out now, not after an hour, that results cannot be written; makes the folder. `option` names it.

    Raises:
        OutputError: the folder cannot be made, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)  # another process may have tried at the same time
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror}). Choose another folder with {option}."
        ) from error


def to_json(artefact: Any) -> str:
    """The artefact as JSON text with its checksum: same value, same text, byte for byte."""
    data = dataclasses.asdict(artefact)
    return json.dumps({**data, CHECKSUM: fingerprint(data)}, indent=1, sort_keys=True) + "\n"


def save(artefact: Any, path: Path) -> None:
    """Store an artefact as JSON, atomically."""
    write_atomic(path, to_json(artefact).encode())


def load(kind: type[T], path: Path) -> T:
    """Read an artefact back.

    Raises:
        ArtifactError: the file is missing, is not JSON, has another version, lacks or adds fields, or was edited.
    """
    value, written = _read(kind, path)
    if written is False:
        raise ArtifactError(
            f"{path}: edited since it was written: its content does not have its checksum. "
            "Undo that, or delete it to compute it again."
        )
    return value


def load_edited(kind: type[T], path: Path) -> tuple[T, bool]:
    """Read an artefact that may have been edited, and whether it was: its checksum is another, or is not there.

    `load` takes a file of an earlier version, which has no checksum, to be as it was written.

    Raises:
        ArtifactError: as for `load`, edited files aside.
    """
    value, written = _read(kind, path)
    return value, not written


def _read(kind: type[T], path: Path) -> tuple[T, bool | None]:
    """An artefact, and whether it is as it was written; None where an earlier version wrote no checksum."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file. Expected a {kind.__name__} as JSON.") from error
    except (OSError, ValueError, RecursionError) as error:  # the last of JSON that is nested too deeply
        raise ArtifactError(f"{path}: not readable as JSON ({error}). Delete it to compute it again.") from error
    if not isinstance(data, dict) or data.get("version", VERSION) != VERSION:
        found = data.get("version") if isinstance(data, dict) else type(data).__name__
        raise ArtifactError(f"{path}: version {found!r}, this program reads {VERSION}. Delete it to compute it again.")
    found = data.pop(CHECKSUM, None)
    try:
        value = _build(kind, data)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path}: not a {kind.__name__} ({error}). Delete it to compute it again.") from error
    if found is None and NEWER.get(kind.__name__) not in data:
        return typing.cast(T, value), None
    return typing.cast(T, value), found == fingerprint(data)


def check_fresh(path: Path, found: str, expected: str, later: Sequence[Path] = ()) -> None:
    """Refuse an artefact that was computed from something else.

    Args:
        path: the artefact.
        found: fingerprint of what it was computed from.
        expected: fingerprint of what it would be computed from now.
        later: artefacts that were computed from it.

    Raises:
        StaleError: the fingerprints differ.
    """
    if found != expected:
        too = f", and what was made of it ({', '.join(file.name for file in later)})" if later else ""
        raise StaleError(
            f"{path}: stale: computed from another model, data or settings (fingerprint {found}, now {expected}). "
            f"Delete it{too}, or choose another --out folder.",
            path,
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
