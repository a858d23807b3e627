"""Artefacts come back as they were stored, and damaged, foreign or stale ones are refused."""

import dataclasses
import json
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress import artifacts
from compress.artifacts import (
    Cost,
    Curve,
    Gallery,
    Gate,
    GroupPlan,
    Latency,
    Machine,
    Parity,
    Placement,
    PruningPlan,
    Report,
    Score,
    Scored,
    Sensitivity,
    StageResult,
)
from compress.artifacts.store import NEWER
from compress.errors import ArtifactError, OutputError
from compress.pipeline.code import Code
from compress.pipeline.labelling import Labels
from compress.pipeline.state import Record

KINDS = [
    Cost,
    Curve,
    Gallery,
    Gate,
    GroupPlan,
    Latency,
    Machine,
    Parity,
    PruningPlan,
    Report,
    Score,
    Sensitivity,
    StageResult,
]
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(string.printable + "äα字", max_size=8)
COSTS = st.builds(
    Cost,
    params=st.integers(0),
    macs=st.integers(0),
    size_bytes=st.integers(0),
    input_shape=st.tuples(st.just(3), st.integers(1), st.integers(1)),
    uncounted=st.lists(NAMES, max_size=2).map(tuple),
)
CURVES = st.builds(
    Curve,
    channels=st.integers(1),
    layers=st.lists(NAMES, max_size=3).map(tuple),
    macs=st.integers(0),
    metric=st.dictionaries(NAMES, NUMBERS, max_size=3),
)


def make_sensitivity() -> Sensitivity:
    curve = Curve(channels=16, layers=("a", "b"), macs=100, metric={"0.5": 0.9})
    return Sensitivity("f", "fpgm", "accuracy", 0.95, (0.5, 0.75), {"a": curve})


@given(
    st.builds(
        Sensitivity,
        fingerprint=NAMES,
        criterion=NAMES,
        metric_name=NAMES,
        baseline=NUMBERS,
        ratios=st.lists(NUMBERS, max_size=3).map(tuple),
        curves=st.dictionaries(NAMES, CURVES, max_size=3),
        version=st.just(artifacts.VERSION),
    )
)
def test_sensitivity_round_trip(tmp_path_factory: pytest.TempPathFactory, value: Sensitivity) -> None:
    path = tmp_path_factory.getbasetemp() / "round_trip.json"
    artifacts.save(value, path)
    assert artifacts.load(Sensitivity, path) == value
    text = path.read_text(encoding="utf-8")
    artifacts.save(artifacts.load(Sensitivity, path), path)
    assert path.read_text(encoding="utf-8") == text, "same value, same text"


@given(st.data())
def test_report_round_trip(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Nested values, tuples of values, and values that may be absent."""
    numbers = st.builds(float, NUMBERS)
    counts = st.integers(0)
    latency = st.none() | st.builds(
        Latency,
        *(numbers,) * 3,
        threads=counts,
        runs=counts,
        speedup=st.none() | numbers,
    )
    parity = st.none() | st.builds(Parity, *(numbers,) * 6, count=counts)
    score = st.builds(Score, numbers, NAMES, counts, st.dictionaries(NAMES, numbers, max_size=2))
    stages = st.builds(
        StageResult, NAMES, NAMES, COSTS, score, latency, parity, numbers, st.lists(NAMES, max_size=2).map(tuple)
    )
    gates = st.builds(Gate, NAMES, numbers, numbers, st.booleans())
    value = Report(
        "title",
        "command",
        "date",
        Machine("cpu", ("avx2",), 2, "os", {"torch": "2"}),
        tuple(data.draw(st.lists(stages, max_size=2))),
        tuple(data.draw(st.lists(gates, max_size=2))),
        "f",
        plan={"g": {"channels": 8.0, "kept": 4.0}},
    )
    path = tmp_path_factory.getbasetemp() / "report.json"
    artifacts.save(value, path)
    assert artifacts.load(Report, path) == value


def test_plan_round_trip(tmp_path: Path) -> None:
    group = GroupPlan(8, ("a",), 0.5, 0.5, (1, 3, 5, 7), "note")
    plan = PruningPlan("f", "l1", 8, {"macs": 0.5}, 100, 50, 10, 5, {"a": group}, ("said",))
    artifacts.save(plan, tmp_path / "new" / "plan.json")
    assert artifacts.load(PruningPlan, tmp_path / "new" / "plan.json") == plan


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_values_are_frozen(kind: type) -> None:
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]


@given(st.dictionaries(NAMES, NUMBERS), st.dictionaries(NAMES, NUMBERS))
def test_fingerprint_tells_values_apart(one: dict[str, float], other: dict[str, float]) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (artifacts.fingerprint(one) == artifacts.fingerprint(other)) == same


def test_fingerprint_keeps_parts_apart() -> None:
    """Moving a byte from one part to the next is another value."""
    assert artifacts.fingerprint(b"ab", b"c") != artifacts.fingerprint(b"a", b"bc")


def test_stale_is_refused() -> None:
    artifacts.check_fresh(Path("s.json"), "a", "a")
    with pytest.raises(ArtifactError, match=r"s\.json: stale: .*fingerprint a, now b.*Delete it"):
        artifacts.check_fresh(Path("s.json"), "a", "b")


def test_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none\.json: no such file\. Expected a Sensitivity"):
        artifacts.load(Sensitivity, tmp_path / "none.json")


@pytest.mark.parametrize("text", ["", "{", "\x00\x01", '{"fingerprint": "f"', "\ud800", "[" * 100_000])
def test_damaged_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "s.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ArtifactError, match=r"s\.json: not readable as JSON .*Delete it"):
        artifacts.load(Sensitivity, path)


@given(st.integers(0, 400))
def test_truncated_never_passes(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    text = artifacts.to_json(make_sensitivity()).rstrip()
    path = tmp_path_factory.getbasetemp() / "cut.json"
    path.write_text(text[: min(length, len(text) - 1)], encoding="utf-8")
    with pytest.raises(ArtifactError):
        artifacts.load(Sensitivity, path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 99}, "version 99, this program reads 1"),
        ({"extra": 1}, r"unknown fields \['extra'\]"),
        ({"criterion": 3}, "expected str"),
        ({"baseline": "high"}, "could not convert"),
        ({"curves": [1]}, "not a Sensitivity"),
        ({"curves": {"a": {"channels": 1}}}, "missing"),
        ({"curves": {"a": 7}}, "expected an object"),
        ({"ratios": None}, "not a Sensitivity"),
    ],
)
def test_wrong_content_is_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps({**dataclasses.asdict(make_sensitivity()), **change}), encoding="utf-8")
    with pytest.raises(ArtifactError, match=words):
        artifacts.load(Sensitivity, path)


def test_edited_is_refused_or_said(tmp_path: Path) -> None:
    """How the text is laid out is no matter; a file of an earlier version holds no checksum, nor newer fields."""
    path, value = tmp_path / "s.json", make_sensitivity()
    artifacts.save(value, path)
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(data), encoding="utf-8")
    assert artifacts.load(Sensitivity, path) == value
    assert artifacts.load_edited(Sensitivity, path) == (value, False)
    path.write_text(json.dumps({**data, "baseline": 0.5}), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"s\.json: edited since it was written: .* Undo that, or delete it"):
        artifacts.load(Sensitivity, path)
    assert artifacts.load_edited(Sensitivity, path) == (dataclasses.replace(value, baseline=0.5), True)
    del data["checksum"]
    path.write_text(json.dumps({**data, "baseline": 0.5}), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"s\.json: edited since it was written: "):
        artifacts.load(Sensitivity, path)
    assert artifacts.load_edited(Sensitivity, path) == (dataclasses.replace(value, baseline=0.5), True)
    for newer in ("model", "input_shape", "code"):
        del data[newer]
    path.write_text(json.dumps(data), encoding="utf-8")
    assert artifacts.load(Sensitivity, path) == value
    assert artifacts.load_edited(Sensitivity, path) == (value, True)


def test_kinds_with_checksums_have_the_fields_that_tell() -> None:
    kinds = (Sensitivity, PruningPlan, Report, Placement, Scored, Record, Code, Labels)
    assert {kind.__name__ for kind in kinds} == set(NEWER)
    for kind in kinds:
        assert NEWER[kind.__name__] in {field.name for field in dataclasses.fields(kind)}


def test_a_list_is_no_artefact(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ArtifactError, match="version 'list'"):
        artifacts.load(Sensitivity, tmp_path / "s.json")


def test_write_keeps_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves the old file whole and nothing half-written beside it."""
    path = tmp_path / "s.json"
    artifacts.write_atomic(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"s\.json: cannot be written \(No space left on device\)"):
        artifacts.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.json"]


def test_whether_a_folder_can_be_written_is_found_out_without_a_trace(tmp_path: Path) -> None:
    artifacts.check_writable(tmp_path / "new" / "deep")
    assert list((tmp_path / "new" / "deep").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(
        OutputError, match=r"file: cannot be written \(File exists\)\. Choose another folder with --x\."
    ):
        artifacts.check_writable(tmp_path / "file", "--x")


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot be written .*--out"):
        artifacts.write_atomic(tmp_path / "out" / "s.json", b"")


def test_what_is_set_aside_keeps_what_was_before(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    kept = []
    for number in range(3):
        file.write_text(str(number))
        kept.append(artifacts.set_aside(file))
    assert [path.name for path in kept] == ["recipe.old.yaml", "recipe.old2.yaml", "recipe.old3.yaml"]
    assert [path.read_text() for path in kept] == ["0", "1", "2"]
