"""The terminal, Markdown and HTML say what the artefacts hold, and nothing they hold can break the page."""

import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from compress import artifacts
from compress.artifacts import (
    VAL,
    ActivationScan,
    Cost,
    Curve,
    Figure,
    Gate,
    Interval,
    Latency,
    Machine,
    Parity,
    Report,
    Score,
    Sensitivity,
    SetResult,
    StageResult,
)
from compress.report import overview, render_html, render_markdown, tables, terminal, write_report
from compress.report.inspection import GroupSummary, Inspection
from compress.report.plots import sensitivity_svg

NASTY = "a|b<script>[red]{{x}}"


def make_stage(name: str, size: int, metric: float, median: float, speedup: float | None) -> StageResult:
    return StageResult(
        stage=name,
        file=f"{name}.onnx",
        cost=Cost(params=size // 4, macs=size * 100, size_bytes=size, input_shape=(3, 48, 192)),
        score=Score(metric, "accuracy", 1200, {"0": metric, "180": metric}),
        latency=Latency(median, median * 0.9, median * 1.2, 1, 50, speedup),
    )


def make_report(**changes: object) -> Report:
    int8 = dataclasses.replace(
        make_stage("int8", 150_000, 0.89, 0.5, 2.0),
        parity=Parity(0.01, 0.001, 0.02, 0.002, 0.998, 1.0, 64, 0.9, 1.0),
        notes=("stem left in float",),
    )
    report = Report(
        title="demo",
        command="compress run recipes/demo_cls.yaml",
        date="2026-01-02",
        machine=Machine("A CPU", ("avx2", "vnni"), 2, "Linux", {"torch": "2.13.0"}),
        stages=(make_stage("baseline", 600_000, 0.9, 1.0, None), int8),
        gates=(Gate("size_ratio", 0.35, 0.25, True), Gate("metric_min", 0.95, 0.89, False)),
        fingerprint="abc",
        notes=("2 images skipped",),
        plan={"conv1": {"channels": 16, "kept": 8, "pruning_ratio": 0.5}},
    )
    return dataclasses.replace(report, **changes)  # type: ignore[arg-type]


def make_sensitivity() -> Sensitivity:
    curves = {
        "conv1": Curve(16, ("conv1",), 1000, {"0.25": 0.89, "0.5": 0.91}),
        NASTY: Curve(32, ("conv2",), 1000, {"0.25": 0.6}),
    }
    return Sensitivity("f", "fpgm", "accuracy", 0.9, (0.25, 0.5), curves)


def in_terminal(report: Report) -> str:
    stream = io.StringIO()
    terminal.print_report(report, Console(file=stream, width=200))
    return stream.getvalue()


class Page(HTMLParser):
    """Collects the text and the tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.tags = "", list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


FACTS = [
    "600.0 (1.00x)",
    "150.0 (0.25x)",
    "15.00 M (0.25x)",
    "1.00 [0.90-1.20]",
    "2.00x",
    "0.8900",
    "+0.0100",
    "0.9 / 1.0 steps",
]


@pytest.mark.parametrize(
    "fact", [*FACTS, "A CPU, 2 cores (avx2 vnni), Linux; torch 2.13.0", "int8: stem left in float"]
)
def test_all_three_say_the_same(fact: str) -> None:
    report = make_report()
    assert fact in in_terminal(report)
    assert fact in render_markdown(report)
    assert fact in Page(render_html(report)).text


def test_gates() -> None:
    assert tables.gate_table(make_report()).rows == (
        ("size_ratio", "<= 0.35", "0.25", "yes"),
        ("metric_min", ">= 0.95", "0.89", "NO"),
    )
    sizes = make_report(gates=(Gate("size_bytes_max", 200_000, 150_123, True),))
    assert tables.gate_table(sizes).rows == (("size_bytes_max", "<= 200,000", "150,123", "yes"),)


def test_markdown_says_how_it_was_measured() -> None:
    text = render_markdown(make_report())
    assert "- command: `compress run recipes/demo_cls.yaml`\n- date: 2026-01-02\n" in text
    assert "over 50 runs, 1 thread(s)" in text
    assert "of one 3x48x192 image" in text
    assert "on 1200 images" in text
    assert "| conv1 | 16 | 8 | 50.0% |" in text


def test_markdown_tables_are_rectangular() -> None:
    """A bar in a name must not make a column."""
    stage = make_stage(NASTY, 1000, 0.5, 1.0, None)
    text = render_markdown(make_report(title=NASTY, stages=(stage,), notes=(NASTY,)), make_sensitivity())
    for block in text.split("\n\n"):
        widths = {line.replace("\\|", "").count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(widths) <= 1, block


@pytest.mark.usefixtures("written_plots")
def test_html_escapes_and_needs_nothing_else() -> None:
    report = make_report(title=NASTY, command=NASTY, plan={NASTY: {"channels": 1, "kept": 1, "pruning_ratio": 0}})
    text = render_html(report, make_sensitivity())
    page = Page(text)
    assert NASTY in page.text
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "svg" in page.tags
    assert not re.search(r"""(src|href)=["'](?!#)|url\((?!#)|@import""", text)


def test_terminal_takes_names_as_text() -> None:
    assert NASTY in in_terminal(make_report(stages=(make_stage(NASTY, 1000, 0.5, 1.0, None),)))


def test_a_report_without_stages() -> None:
    """A run stopped by its first gate still shows."""
    empty = make_report(stages=(), gates=(), plan={}, notes=())
    for text in (in_terminal(empty), render_markdown(empty), render_html(empty)):
        assert "demo" in text


def test_what_was_not_measured_is_a_dash() -> None:
    stage = dataclasses.replace(make_stage("pruned", 1000, 0.5, 1.0, None), latency=None)
    row = tables.stage_table(make_report(stages=(stage,))).rows[0]
    assert row[4:6] == ("-", "-")
    assert row[8] == "-"


def test_sensitivity_table_keeps_noise_and_gaps() -> None:
    """A drop below zero is shown as it is; a cell not yet measured is a dash."""
    rows = tables.sensitivity_table(make_sensitivity()).rows
    assert rows[0] == ("conv1", "16", "+0.0100", "-0.0100")
    assert rows[1] == (NASTY, "32", "+0.3000", "-")


def test_activation_table_has_the_cheapest_first() -> None:
    scan = ActivationScan("f", "hardswish", "relu", "accuracy", 0.9, {"b": 0.5, NASTY: 0.89, "c": 0.91})
    table = tables.activation_table(scan, (NASTY, "c"))
    assert table.rows == (("c", "-0.0100", "yes"), (NASTY, "+0.0100", "yes"), ("b", "+0.4000", "no"))


@pytest.mark.usefixtures("written_plots")
def test_picture_is_the_same_every_time() -> None:
    picture = sensitivity_svg(make_sensitivity())
    assert picture.startswith("<svg")
    assert picture == sensitivity_svg(make_sensitivity())
    assert "accuracy drop" in picture


@pytest.mark.usefixtures("written_plots")
def test_a_scan_that_has_not_begun() -> None:
    empty = dataclasses.replace(make_sensitivity(), curves={})
    assert "<svg" in sensitivity_svg(empty)
    assert render_markdown(make_report(), empty) == render_markdown(make_report())


def test_inspection() -> None:
    groups = (GroupSummary("conv1", 16, 0.25), GroupSummary("fc", 2, 0.01, "defines the output"))
    cost = Cost(124_330, 13_400_000, 585_532, (3, 48, 192), ("GlobalAveragePool",))
    inspection = Inspection(("x float32 [N, 3, 48, 192]",), ("y [N, 2]",), {"Conv": 3, "Relu": 9}, cost, groups)
    stream = io.StringIO()
    terminal.print_inspection(inspection, Console(file=stream, width=120))
    shown = stream.getvalue()
    for words in (
        "inputs: x float32 [N, 3, 48, 192]",
        "124.3 k params, 13.40 M MACs at 3x48x192, 585.5 KB",
        "operators: Relu 9, Conv 3",
        "not counted in MACs: GlobalAveragePool",
        "25.0%",
        "defines the output",
    ):
        assert words in shown


def test_write_report(tmp_path: Path) -> None:
    written = write_report(make_report(), tmp_path / "run", make_sensitivity())
    assert [path.name for path in written] == ["report.json", "report.md", "report.html"]
    assert artifacts.load(Report, written[0]) == make_report()
    assert "## accuracy drop per pruning ratio (fpgm)" in written[1].read_text(encoding="utf-8")


def test_the_post_processing_is_said_everywhere(tmp_path: Path) -> None:
    report = make_report(postprocessing={"threshold": 0.3, "box_threshold": 0.5, "max_candidates": 1000.0})
    said = "post-processing: threshold 0.3, box_threshold 0.5, max_candidates 1000"
    stream = io.StringIO()
    terminal.print_report(report, Console(file=stream, width=200))
    for text in (render_markdown(report), render_html(report), stream.getvalue()):
        assert said in text
    artifacts.save(report, tmp_path / "report.json")
    assert artifacts.load(Report, tmp_path / "report.json").postprocessing == report.postprocessing
    assert "post-processing" not in render_markdown(make_report()) + render_html(make_report())


def test_html_begins_with_the_verdict_and_the_figures_that_matter() -> None:
    text = Page(render_html(make_report())).text
    parts = ["1 of 2 gates missed (metric_min)", "0.8900", "150.0 KB", "15.00 M", "0.50 ms", "2.00x as fast", "Gates"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "8 of 16" in text


def test_cards_are_of_the_worst_set() -> None:
    far, near = Figure(0.7, 0.2, None, Interval(0.1, 0.3)), Figure(0.9, 0.0)
    stages = {"baseline": {"accuracy": Figure(0.9, 0.0)}, "int8": {"accuracy": far}}
    sets = tuple(
        SetResult(name, 10, "f", {**stages, "int8": {"accuracy": figure}}, "accuracy")
        for name, figure in ((VAL, near), ("near", near), ("far", far))
    )
    card = overview.cards(make_report(sets=sets))[0]
    assert card == overview.Card("accuracy on far", "0.9000", "0.7000", "drop +0.2000 [+0.1000, +0.3000]")


def test_bars_are_of_what_is_cut_and_the_rest_is_named() -> None:
    plan = {
        name: {"channels": 8, "kept": kept, "pruning_ratio": 1 - kept / 8}
        for name, kept in zip("abc", (8, 6, 2), strict=True)
    }
    cut, whole = overview.bars(make_report(plan=plan))
    assert [(bar.name, bar.kept, bar.share) for bar in cut] == [("c", 2, 25.0), ("b", 6, 75.0)]
    assert whole == ("a",)
