"""`benchmarks.bench_models`: every row in one table, finished work kept, and missing rows with their reason."""

import dataclasses
import doctest
import importlib
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bench_models, bench_results, bench_rows, bench_table
from compress import artifacts
from compress.artifacts import Latency, Machine, Score
from compress.errors import CompressError, ModelError
from compress.graph import is_quantised, read_model
from compress.measure.session import Session
from tests.pipeline import tiny

ROOT = Path(__file__).parents[2]
NAMES = ["deployed", "canonical form", "onnxruntime", "nncf", "int8", "pruned_int8"]


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A model, data and a recipe that only calibrates."""
    folder = tiny.write_inputs(tmp_path, 4)
    tiny.recipe(
        folder,
        steps={"prune": {"target": {"ratio": 0.5}}, "quantize": {"epochs": 0, "calibration": 4, "optimize": "size"}},
    )
    return folder


@pytest.fixture
def nncf(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """NNCF that gives the model back; the files it was requested."""
    made: list[Path] = []

    def quantize(python: Path, source: Path, images: list[Any], out_file: Path, *, half_range: bool) -> str:
        assert python == Path("their-python")
        assert [image.shape for image in images] == [(1, *tiny.SHAPE)] * 4
        made.append(out_file)
        artifacts.write_atomic(out_file, source.read_bytes())
        return "3.4.0"

    monkeypatch.setattr(bench_rows, "quantize_nncf_in", quantize)
    return made


def run(inputs: Path, *options: str, model: str = "tiny") -> Any:
    """The result of the script."""
    arguments = ["bench_models.py", "--model", f"{model}={inputs / 'recipe.yaml'}", "--out", str(inputs / "bench")]
    arguments += ["--set", f"out={inputs / 'out'}", "--rounds", "3", "--peers-python", "their-python", *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", arguments)
        assert bench_models.main() == 0
    return artifacts.load(bench_models.Bench, inputs / "bench" / "bench.json")


def counted(monkeypatch: pytest.MonkeyPatch, stop_after: int = 99) -> list[Path]:
    """The files that are scored from now on; interrupted behind so many."""
    scored: list[Path] = []
    score_model = bench_rows.score_model

    def score(file: Path, *arguments: Any) -> Score:
        if len(scored) == stop_after:
            raise KeyboardInterrupt
        scored.append(file)
        found: Score = score_model(file, *arguments)
        return found

    monkeypatch.setattr(bench_rows, "score_model", score)
    return scored


# --- whole ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_row_in_one_table_and_picture(nncf, inputs: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    docs = inputs / "docs.md"
    docs.write_text("before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n")
    found = run(inputs, "--docs", str(docs))
    (model,) = found.models
    assert [row.name for row in model.rows] == NAMES
    assert {row.score.count for row in model.rows} == {8}  # 4 crops, each upright and turned
    assert all(set(row.latencies) == {"1", "2"} for row in model.rows)
    assert len({latency.runs for row in model.rows for latency in row.latencies.values()}) == 1
    assert {row.latencies["2"].threads for row in model.rows} == {2}
    by_name = {row.name: row for row in model.rows}
    assert [is_quantised(read_model(Path(by_name[name].file))) for name in NAMES] == [
        *(False, False, True, False, True, True)  # NNCF's stand-in gives the float model back
    ]
    assert by_name["pruned_int8"].size_bytes < by_name["int8"].size_bytes < by_name["canonical form"].size_bytes
    assert found.nncf == "3.4.0"
    table = capsys.readouterr().out
    assert "not measured" not in table
    page = docs.read_text()
    assert page.startswith("before\n<!-- bench:begin -->\n\n**tiny**")
    assert page.endswith("<!-- bench:end -->\nafter\n")
    assert "![metric against latency, a point for each row](bench.svg)" in page
    assert ElementTree.fromstring((inputs / "bench.svg").read_text()).tag.endswith("svg")


@pytest.mark.slow
def test_a_stopped_run_goes_on_where_it_was(nncf, inputs: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    with monkeypatch.context() as patch:
        first = counted(patch, stop_after=3)
        with pytest.raises(bench_models.typer.Exit) as stopped:
            run(inputs)
    assert stopped.value.exit_code == 130
    assert len(first) == 3
    with monkeypatch.context() as patch:
        second = counted(patch)
        whole = run(inputs)
    assert [file.name for file in second] == ["nncf.onnx", "int8.onnx", "int8.onnx"]
    assert len(nncf) == 1
    with monkeypatch.context() as patch:
        third = counted(patch)
        again = run(inputs)
    assert third == []
    assert len(nncf) == 1
    assert again.nncf == "3.4.0"
    assert [row.score for row in again.models[0].rows] == [row.score for row in whole.models[0].rows]


@pytest.mark.slow
def test_other_images_are_scored_anew(nncf, inputs: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    run(inputs)
    scored = counted(monkeypatch)
    (model,) = run(inputs, "--images", "tiny=2").models
    assert len(scored) == len(NAMES)
    assert {row.score.count for row in model.rows} == {2}
    assert "as `--images 2` asks" in (inputs / "bench" / "bench.md").read_text()


def test_a_file_is_made_anew_when_what_it_is_made_from_changes(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(file: Path) -> str:
        made.append(file)
        file.write_bytes(b"")
        return f"note {len(made)}"

    file = tmp_path / "a.onnx"
    assert [bench_rows.keep(file, identity, make) for identity in ("a", "a", "b", "b")] == [
        *("note 1", "note 1", "note 2", "note 2")
    ]
    file.unlink()
    assert bench_rows.keep(file, "b", make) == "note 3"


def test_what_cannot_be_made_is_a_row_with_its_reason(  # type: ignore[no-untyped-def]
    inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def fails(*_: Any, **__: Any) -> str:
        raise ModelError("NNCF cannot be installed into x: no network")

    monkeypatch.setattr(bench_rows, "quantize_nncf_in", fails)
    (model,) = run(inputs, "--threads", "1").models
    assert [row.name for row in model.rows if row.score is None] == ["nncf"]
    shown = capsys.readouterr().out
    assert "| NNCF | not measured | - | - | - | - |" in shown
    assert "- tiny, NNCF: not measured: NNCF cannot be installed into x: no network" in shown


class HalfOpenVino:
    """OpenVINO that runs the networks as onnxruntime does, but not pruned ones."""

    def __init__(self, model: bytes, input_shape: Any, *, name: str, threads: int) -> None:
        if len(model) < 3300:
            raise ModelError(f"{name}: OpenVINO cannot load it: no such operator.")
        self.session = Session(model, threads=threads)
        self.output_shape, self.run = self.session.output_shape, self.session.run


def test_int8_files_in_openvino_too(nncf, inputs: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("compress.measure.runtimes.OpenVinoSession", HalfOpenVino)
    monkeypatch.setattr(bench_models, "load_openvino", lambda: None)
    (model,) = run(inputs, "--openvino").models
    rows = {row.name: row for row in model.rows}
    assert list(rows) == [
        *("deployed", "canonical form", "onnxruntime", "nncf", "nncf@openvino"),
        *("int8", "int8@openvino", "pruned_int8", "pruned_int8@openvino"),
    ]
    assert rows["int8@openvino"].score == rows["int8"].score
    assert set(rows["int8@openvino"].latencies) == {"1", "2"}
    assert rows["int8@openvino"].file == rows["int8"].file
    shown = capsys.readouterr().out
    assert "tiny, ours, pruned + int8, in OpenVINO: not measured: int8.onnx: OpenVINO cannot load it" in shown
    assert "and int8 files in OpenVINO, too" in shown


def test_openvino_that_is_not_installed_is_said_at_once(inputs: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(CompressError, match="openvino is not installed"):
        run(inputs, "--openvino")
    assert not (inputs / "out").exists()


def test_an_int8_file_of_ones_own_is_taken(nncf: list[Path], inputs: Path) -> None:
    folder = inputs / "trained"
    artifacts.write_atomic(folder / "int8.onnx", (inputs / "model.onnx").read_bytes())
    recipe = f"{inputs / 'recipe.yaml'}:{folder},int8={folder}"
    entries = bench_models.parse_entries([f"own={recipe}"], [f"out={inputs / 'out'}"], [])
    options = bench_models.argparse.Namespace(
        out=inputs / "bench", peers_python=Path("their-python"), threads=(1,), rounds=3, openvino=False
    )
    (model,) = bench_models.run(entries, options, lambda *_: None).models
    assert [row.file for row in model.rows[-2:]] == [str(folder / "int8.onnx")] * 2
    assert model.trained == ("pruned_int8", "int8")
    assert not (inputs / "out").exists()  # the recipe was not run


def test_the_time_of_every_row_is_over_the_same_fp32_files() -> None:
    text = bench_table.model_table(example().models[0], (1, 2))
    lines = [line.split(" | ") for line in text.splitlines()]
    assert {len(line) for line in lines} == {9}
    assert lines[-1] == [
        *("| ours, pruned + int8", "0.9100", "91.8", "0.50 [0.45-0.60]", "4.00x", "2.00x"),
        *("1.00 [0.90-1.20]", "4.00x", "2.00x |"),
    ]


# --- the table --------------------------------------------------------------------------------------------------


def example(flags: tuple[str, ...] = ("avx2",)) -> Any:
    """A result with times that divide well."""

    def latencies(ms: float) -> dict[str, Latency]:
        return {str(n): Latency(n * ms, n * ms * 0.9, n * ms * 1.2, n, 50) for n in (1, 2)}

    times = {"deployed": 2.0, "canonical form": 1.0, "onnxruntime": 2.5, "int8": 1.0, "pruned_int8": 0.5}
    rows = [
        bench_results.Row(name, f"{name}.onnx", 91_800, Score(0.91, "accuracy", 1200), latencies(ms))
        for name, ms in times.items()
    ]
    rows.insert(3, bench_results.Row("nncf", missing="no network"))
    model = bench_results.ModelBench("cls", "ppocr_cls", (3, 48, 192), 256, None, ("pruned_int8",), tuple(rows))
    machine = Machine("A CPU", flags, 2, "Linux", {"onnxruntime": "1.31.1"})
    return bench_table.Bench("the command", "today", "abc1234", machine, 0.15, "", (1, 2), 50, (model,))


def test_the_summary_has_a_row_for_each_tool() -> None:
    assert bench_table.summary(example()).splitlines() == [
        "| int8 by | classifier: accuracy, KB, speed |",
        "| --- | ---: |",
        "| fp32 | 0.9100, 92, 1.00x |",
        "| onnxruntime's quantizer | 0.9100, 92, 0.80x |",
        "| NNCF | not measured |",
        "| compress, calibrated alone | 0.9100, 92, 2.00x |",
        "| compress, pruned and trained | 0.9100, 92, 4.00x |",
    ]


def test_the_caption_says_how_it_was_measured() -> None:
    text = bench_table.render(example())
    for part in (
        "`the command`, at commit abc1234",
        "today; A CPU, 2 cores (avx2)",
        "- other work kept 0.15 of 2 cores busy meanwhile\n",
        "over 50 runs",
        "1 and then 2 threads",
        "accuracy on 1200 validation images; ms: 3x48x192",
        "7-bit weights, since 8 bits saturate",
        "(cls 256)",
        "validation images: cls: ours, pruned + int8.",
        "cls, NNCF: not measured: no network",
    ):
        assert part in text, part
    assert "8-bit weights, and" in bench_table.render(example(("avx2", "avx512_vnni")))


@pytest.mark.parametrize(
    ("busy", "said"), [(None, []), (0.2, ["other work kept 0.20 of"]), (0.21, ["**other work kept 0.21 of 2 cores"])]
)
def test_a_busy_machine_is_said(busy: float | None, said: list[str]) -> None:
    lines = bench_table.busy_lines(dataclasses.replace(example(), busy_cores=busy))
    assert len(lines) == len(said)
    assert all(line.startswith(start) for line, start in zip(lines, said, strict=True))


def test_busy_cores_are_those_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4 seconds' work of all cores within 2 seconds this process did 1: others kept 1.5 cores busy."""
    stat, moments = tmp_path / "stat", []
    monkeypatch.setattr(bench_models.os, "sysconf", lambda name: 100)
    for worked, own, clock in ((100, 5.0, 20.0), (500, 6.0, 22.0)):
        stat.write_text(f"cpu  {worked} 0 0 1000 50 0 0 0 0 0\ncpu0 1 2 3\n")
        monkeypatch.setattr(bench_models.time, "process_time", lambda own=own: own)
        monkeypatch.setattr(bench_models.time, "monotonic", lambda clock=clock: clock)
        moments.append(bench_models.Ticks.now(stat))
    assert bench_models.busy_cores(*moments) == 1.5
    assert bench_models.Ticks.now(tmp_path / "none") is None
    assert bench_models.busy_cores(None, moments[1]) is None


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    bench = example()
    artifacts.save(bench, tmp_path / "bench.json")
    assert artifacts.load(bench_table.Bench, tmp_path / "bench.json") == bench


@pytest.mark.usefixtures("written_plots")
def test_the_picture_has_a_panel_for_each_model_and_a_point_for_each_row() -> None:
    bench = example()
    two = dataclasses.replace(bench, models=(bench.models[0], dataclasses.replace(bench.models[0], name="rec")))
    picture = bench_table.plot_svg(two)
    assert picture == bench_table.plot_svg(two)
    texts = [element.text for element in ElementTree.fromstring(picture).iter() if element.tag.endswith("text")]
    assert {"cls", "rec", "ours, int8", "accuracy"} <= set(texts)
    assert "NNCF" not in texts  # not measured
    assert texts.count("ours, int8") == 1  # one legend for all panels


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("no marks", "must hold <!-- bench:begin --> and then <!-- bench:end -->, each once"),
        ("<!-- bench:end --> <!-- bench:begin -->", "each once"),
        ("<!-- bench:begin --> <!-- bench:begin --> <!-- bench:end -->", "each once"),
        (None, r"d\.md: no such file"),
    ],
)
def test_a_page_without_the_marks_is_refused(tmp_path: Path, page: str | None, said: str) -> None:
    if page is not None:
        (tmp_path / "d.md").write_text(page)
    with pytest.raises(CompressError, match=said):
        bench_table.rewrite_marked(tmp_path / "d.md", "text")


def test_the_projects_own_pages_have_the_marks() -> None:
    for page in (ROOT / "docs" / "benchmarks.md", ROOT / "README.md"):
        inside = page.read_text().split(bench_table.BEGIN)[1].split(bench_table.END)[0]
        assert bench_table.rewrite_marked(page, inside) == page.read_text()


# --- arguments --------------------------------------------------------------------------------------------------


def test_a_model_is_read_in_all_its_parts(inputs: Path) -> None:
    recipe = inputs / "recipe.yaml"
    texts = [f"a={recipe}", f"b={recipe}:runs/b", f"c={recipe},int8={inputs / 'model.onnx'}"]
    a, b, c = bench_models.parse_entries(texts, ["b.seed=7", "threads=1"], ["5", "c=2"])
    assert [(entry.name, entry.ours, entry.images) for entry in (a, b, c)] == [
        *(("a", None, 5), ("b", Path("runs/b"), 5), ("c", None, 2))
    ]
    assert [entry.recipe.seed for entry in (a, b, c)] == [0, 7, 0]
    assert {entry.recipe.threads for entry in (a, b, c)} == {1}
    assert (b.int8, c.int8) == (None, inputs / "model.onnx")


@pytest.mark.parametrize(
    ("models", "images", "said"),
    [
        (["recipe.yaml"], [], r"--model: got 'recipe.yaml'. Must be NAME=RECIPE\[:RUN\]\[,int8=FILE\]"),
        (["a={recipe}", "a={recipe}"], [], "each name must be given once"),
        (["task={recipe}"], [], "'task' is a key of recipes. Use another name"),
        (["a={recipe},int8=none.onnx"], [], "--model a: int8=none.onnx: no such file"),
        (["a={recipe}"], ["b=3"], "--images: got 'b=3'. Must be a number, or NAME=NUMBER of a"),
        (["a={recipe}"], ["0"], "--images: got '0'"),
        (["a=none.yaml"], [], "none.yaml: cannot be read"),
    ],
)
def test_what_is_not_understood_is_one_line(  # type: ignore[no-untyped-def]
    inputs: Path, models: list[str], images: list[str], said: str
) -> None:
    texts = [text.format(recipe=inputs / "recipe.yaml") for text in models]
    with pytest.raises(CompressError, match=said):
        bench_models.parse_entries(texts, [], images)


def test_a_run_that_is_not_finished_is_refused(inputs: Path) -> None:
    (entry,) = bench_models.parse_entries([f"a={inputs / 'recipe.yaml'}:{inputs / 'empty'}"], [], [])
    with pytest.raises(CompressError, match=r"--model a: .*empty: has no int8.onnx. Give the folder of a finished"):
        bench_models.make_files(entry, inputs / "bench", lambda: Path(), lambda *_: None)


def test_a_recipe_without_quantisation_is_refused(inputs: Path) -> None:
    tiny.recipe(inputs, steps={"prune": {"target": {"ratio": 0.5}}})
    (entry,) = bench_models.parse_entries([f"a={inputs / 'recipe.yaml'}"], [], [])
    with pytest.raises(CompressError, match=r"--model a: recipe: has no `quantize` step"):
        bench_models.make_files(entry, inputs / "bench", lambda: Path(), lambda *_: None)


def test_the_models_that_ship_are_the_default() -> None:
    """The recipes are read; their data is rendered by `make bench`, and need not be here."""
    matches = [bench_models._match(text) for text in bench_models.SHIPPED]
    assert [match["name"] for match in matches] == ["det", "rec", "cls"]
    assert all((ROOT / match["recipe"]).is_file() for match in matches)


@pytest.mark.slow
def test_as_a_program_it_helps_and_fails_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.bench_models"]
    shown = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "NAME=RECIPE[:RUN][,int8=FILE]" in shown.stdout
    failed = subprocess.run(
        [*command, "--model", "x", "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert failed.returncode == 1
    assert failed.stderr.startswith("Error: --model: got 'x'")
    for wrong in (("--threads", "0"), ("--rounds", "2")):
        failed = subprocess.run([*command, *wrong], cwd=ROOT, capture_output=True, text=True)
        assert failed.returncode == 2
        assert f"got '{wrong[1]}'. Must be" in failed.stderr


@pytest.mark.parametrize("name", ["bench_models", "bench_results", "bench_table", "peers"])
def test_examples_in_docstrings_hold(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"benchmarks.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
