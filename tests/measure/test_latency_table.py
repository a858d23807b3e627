"""The table of operator times: what is measured once, what is kept, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from compress.artifacts import Machine, cache_folder
from compress.errors import ArtifactError
from compress.measure import latency_table
from compress.measure.latency_table import LatencyTable, key_of
from compress.measure.operator_times import Operator, OperatorTime, measure_operator

HERE = Machine("Some CPU", ("avx2", "fma"), 2, "Linux", {"onnxruntime": "1.0"})
RELU = Operator("Relu", ((1, 8, 4, 4),))


class Fake:
    """Measures by counting; each operator takes the number of times it was measured before."""

    def __init__(self, gauge_ms: float = 1.0) -> None:
        self.asked: list[Operator] = []
        self.gauge_ms = gauge_ms

    def __call__(self, operator: Operator, threads: int) -> OperatorTime:
        self.asked.append(operator)
        return OperatorTime(float(len(self.asked)), 0.5, 0.25, self.gauge_ms)


def table(path: Path, measure: Fake, machine: Machine = HERE, threads: int = 1) -> LatencyTable:
    return LatencyTable(path, measure=measure, machine=machine, threads=threads)


def test_an_operator_is_measured_once_also_by_the_next_program(tmp_path: Path) -> None:
    path, fake = tmp_path / "table.json", Fake()
    first = table(path, fake)
    assert first.time(RELU) == first.time(RELU) == OperatorTime(1.0, 0.5, 0.25, 1.0)
    first.save()
    second = table(path, fake)
    assert second.time(RELU) == first.time(RELU)
    assert (first.measured, second.measured, len(fake.asked)) == (1, 0, 1)


def test_a_real_operator_is_measured_once(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    first = LatencyTable(path, measure=measure_operator)
    measured = first.time(RELU)
    first.save()
    second = LatencyTable(path, measure=measure_operator)
    assert second.time(RELU) == measured
    assert measured.kernel_ms > 0
    assert (first.measured, second.measured) == (1, 0)


def test_the_file_says_where_its_times_hold(tmp_path: Path) -> None:
    made = table(tmp_path / "table.json", Fake(), threads=2)
    made.time(RELU)
    made.save()
    stored = json.loads((tmp_path / "table.json").read_text())
    assert (stored["cpu"], stored["flags"], stored["onnxruntime"], stored["threads"]) == (
        "Some CPU",
        ["avx2", "fma"],
        "1.0",
        2,
    )
    assert stored["times"] == {"Relu 1x8x4x4 float32": [1.0, 0.5, 0.25, 1.0]}


@pytest.mark.parametrize(
    ("machine", "threads", "text"),
    [
        (replace(HERE, cpu="Other CPU"), 1, "cpu is Some CPU, here Other CPU"),
        (replace(HERE, flags=()), 1, "flags is avx2 fma, here none"),
        (replace(HERE, versions={}), 1, r"onnxruntime is 1\.0, here unknown"),
        (HERE, 2, "threads is 1, here 2"),
    ],
    ids=["cpu", "flags", "onnxruntime", "threads"],
)
def test_times_of_another_machine_are_refused(tmp_path: Path, machine: Machine, threads: int, text: str) -> None:
    path = tmp_path / "table.json"
    made = table(path, Fake())
    made.time(RELU)
    made.save()
    with pytest.raises(ArtifactError, match=rf"table\.json: times of another machine: {text}\. Delete it"):
        table(path, Fake(), machine, threads)


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    made = LatencyTable(tmp_path / "file" / "table.json", measure=Fake(), machine=HERE, on_note=said.append)
    for channels in (8, 16):
        assert made.time(replace(RELU, inputs=((1, channels, 4, 4),))).kernel_ms > 0
        made.save()
    assert len(said) == 1
    assert "cannot be written, so operators are timed again next time" in said[0]


def test_interrupted_it_keeps_what_was_measured(tmp_path: Path) -> None:
    def measure(operator: Operator, threads: int) -> OperatorTime:
        if operator != RELU:
            raise KeyboardInterrupt
        return OperatorTime(3.0)

    path = tmp_path / "table.json"
    made = LatencyTable(path, measure=measure, machine=HERE)
    made.time(RELU)
    with pytest.raises(KeyboardInterrupt):
        made.boundary((1, 8), to="int8")
    assert table(path, Fake()).time(RELU).kernel_ms == 3.0


def test_while_measuring_it_is_saved_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_table, "SAVE_EVERY_S", 0.0)
    table(tmp_path / "table.json", Fake()).time(RELU)
    assert (tmp_path / "table.json").is_file()


def test_what_another_program_saved_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    one, two = table(path, Fake()), table(path, Fake())
    one.time(RELU)
    one.save()
    two.boundary((1, 8), to="float32")
    two.save()
    assert set(json.loads(path.read_text())["times"]) == {"Relu 1x8x4x4 float32", "DequantizeLinear 1x8 float32"}


def test_times_from_a_slow_spell_are_measured_again(tmp_path: Path) -> None:
    path, slow, quick = tmp_path / "table.json", Fake(gauge_ms=2.0), Fake(gauge_ms=1.0)
    first = table(path, slow)
    first.time(RELU)
    first.save()
    assert table(path, quick).time(RELU).gauge_ms == 2.0  # all that there is
    second = table(path, quick)
    second.boundary((1, 8), to="int8")
    second.save()
    assert table(path, quick).time(RELU).gauge_ms == 1.0


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "mine"))
    made = LatencyTable(measure=Fake(), machine=HERE)
    assert made.path.parent == cache_folder() == tmp_path / "mine"
    assert made.path != LatencyTable(measure=Fake(), machine=HERE, threads=2).path
    monkeypatch.delenv("COMPRESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "compress"


def test_the_key_tells_apart_all_that_time_depends_on() -> None:
    conv = Operator("Conv", ((1, 8, 4, 4),), (8, 8, 3, 3), (("pads", (1, 1, 1, 1)),))
    others = [
        replace(conv, op_type="ConvTranspose"),
        replace(conv, inputs=((1, 8, 4, 5),)),
        replace(conv, weight=(16, 8, 3, 3)),
        replace(conv, attributes=()),
        replace(conv, activation="Relu"),
        replace(conv, precision="int8"),
    ]
    assert len({key_of(each) for each in [conv, *others]}) == 7
