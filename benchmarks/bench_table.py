"""What `benchmarks.bench_models` measured, as Markdown and as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bench_results import (
    IN_OPENVINO,
    NNCF,
    ONNXRUNTIME,
    OURS,
    PRUNED,
    TITLES,
    Bench,
    ModelBench,
    Row,
    title,
)
from benchmarks.peers import CANONICAL, DEPLOYED
from compress.artifacts import fingerprint
from compress.errors import CompressError
from compress.measure.machine import saturates_int8
from compress.report import formats
from compress.report.plots import as_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
SHORT = {
    DEPLOYED: "fp32",
    ONNXRUNTIME: "onnxruntime's quantizer",
    NNCF: "NNCF",
    OURS: "compress, calibrated alone",
    PRUNED: "compress, pruned and trained",
}
"""Row -> what the summary calls it."""
KINDS = {"det": "detector", "rec": "recogniser", "cls": "classifier"}
MARKERS = ("o", "s", "^", "v", "D", "*")
PANEL_INCHES = 4.2
METRIC_SPAN = 0.05
"""The least that the metric's axis shows."""
BUSY = 0.1
"""Share of the cores; above it figures are not to be trusted."""


def render(bench: Bench, picture: str = "") -> str:
    """A table for each model, and under all of them how it was measured; `picture` is the plot's file."""
    parts = [part for model in bench.models for part in (heading(model), model_table(model, bench.threads))]
    image = [f"![metric against latency, a point for each row]({picture})"] if picture else []
    return "\n\n".join([*parts, *image, "\n".join(f"- {line}" for line in caption(bench))]) + "\n"


def summary(bench: Bench) -> str:
    """A row for each tool and a column for each model: metric, size, and speed to the deployed file on one thread."""
    rows = [[SHORT[name]] for name in SHORT]
    header, threads = ["int8 by"], str(bench.threads[0])
    for model in bench.models:
        by_name = {row.name: row for row in model.rows}
        metric = next(row.score.name for row in model.rows if row.score)
        header.append(f"{KINDS.get(model.name, model.name)}: {metric}, KB, speed")
        for line, name in zip(rows, SHORT, strict=True):
            row = by_name[name]
            if row.score is None:
                line.append("not measured")
                continue
            speed = by_name[DEPLOYED].latencies[threads].median_ms / row.latencies[threads].median_ms
            line.append(f"{row.score.metric:.4f}, {row.size_bytes / 1000:.0f}, {speed:.2f}x")
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def heading(model: ModelBench) -> str:
    """The model, and what its metric was measured on."""
    first = next(row.score for row in model.rows if row.score)
    shape = "x".join(map(str, model.input_shape))
    few = f", as `--images {model.images}` asks" if model.images is not None else ""
    return f"**{model.name}** (`{model.recipe}`): {first.name} on {first.count} validation images{few}; ms: {shape}"


def model_table(model: ModelBench, threads: Sequence[int]) -> str:
    """The rows of a model as Markdown."""
    metric = next(row.score.name for row in model.rows if row.score)
    timing = [name for number in threads for name in (_ms_header(number), "vs deployed", "vs canonical")]
    header = ["file", metric, "KB", *timing]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    by_name = {row.name: row for row in model.rows}
    lines += [cells(row, by_name, threads) for row in model.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ms_header(threads: int) -> str:
    return f"ms [p10-p90], {threads} thread{'s' if threads > 1 else ''}"


def cells(row: Row, by_name: dict[str, Row], threads: Sequence[int]) -> list[str]:
    """A row's line; speeds are ratios of medians of the same interleaved run, above 1 is faster."""
    if row.score is None:
        return [title(row.name), "not measured", *[formats.NONE] * (1 + 3 * len(threads))]
    timing = []
    for number in map(str, threads):
        own = row.latencies[number]
        timing.append(formats.milliseconds(own))
        timing += [
            f"{by_name[base].latencies[number].median_ms / own.median_ms:.2f}x" for base in (DEPLOYED, CANONICAL)
        ]
    return [title(row.name), f"{row.score.metric:.4f}", formats.kilobytes(row.size_bytes), *timing]


def caption(bench: Bench) -> list[str]:
    """What the figures are, how and where they were measured, and why some are missing."""
    bits = "7-bit weights, since 8 bits saturate on this CPU" if saturates_int8(bench.machine) else "8-bit weights"
    counts = ", ".join(f"{model.name} {model.calibration}" for model in bench.models)
    runs = {latency.runs for model in bench.models for row in model.rows for latency in row.latencies.values()}
    version = f" {bench.nncf}" if bench.nncf else ""
    twice = any(row.name.endswith(IN_OPENVINO) for model in bench.models for row in model.rows)
    others = "as all others, and int8 files in OpenVINO, too" if twice else "as all others"
    trained = "; ".join(f"{m.name}: {', '.join(TITLES[name] for name in m.trained)}" for m in bench.models)
    lines = [
        f"command: `{bench.command}`, at commit {bench.commit}",
        f"{bench.date}; {formats.machine_line(bench.machine)}",
        *busy_lines(bench),
        f"ms: median of one image [10th-90th percentile] in onnxruntime over {_span(runs)} runs, all files of a model "
        f"in turn, {' and then '.join(map(str, bench.threads))} threads; vs: how many times as fast, by medians; "
        "KB: 1000 bytes.",
        f"onnxruntime's quantizer: quantize_static, QDQ, MinMax, per channel. NNCF{version}: post-training "
        "quantisation with its defaults and the full bias correction (fast_bias_correction=False), run in onnxruntime "
        f"{others}. Both get the canonical form, {bits}, and the same training images as ours ({counts}), and "
        "train nothing.",
        f"trained, the best epoch chosen by the validation images: {trained}. Other int8 files are only calibrated.",
    ]
    return lines + [
        f"{model.name}, {title(row.name)}: not measured: {row.missing}"
        for model in bench.models
        for row in model.rows
        if row.missing
    ]


def busy_lines(bench: Bench) -> list[str]:
    """Whether other work was in the way."""
    busy, cores = bench.busy_cores, bench.machine.cores
    if busy is None:
        return []
    quiet = busy <= BUSY * cores
    said = f"other work kept {busy:.2f} of {cores} cores busy meanwhile"
    return [said if quiet else f"**{said}: measure again on a quiet machine.**"]


def _span(values: set[int]) -> str:
    """
    >>> _span({50}), _span({50, 31})
    ('50', '31 to 50')
    """
    return " to ".join(map(str, sorted({min(values), max(values)}))) if values else "0"


def rewrite_marked(path: Path, text: str) -> str:
    """The file's text with what stands between the two marks replaced.

    Raises:
        CompressError: there is no such file, or it does not hold each mark once, in order.
    """
    if not path.is_file():
        raise CompressError(f"--docs: {path}: no such file. Give a Markdown file that holds {BEGIN} and {END}.")
    page = path.read_text(encoding="utf-8")
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise CompressError(f"--docs: {path}: must hold {BEGIN} and then {END}, each once.")
    head, rest = page.split(BEGIN)
    return f"{head}{BEGIN}\n\n{text.strip()}\n\n{END}{rest.split(END)[1]}"


def plot_svg(bench: Bench) -> str:
    """Metric against latency with the first number of threads, a point for each row, a panel for each model."""
    return as_svg(lambda: _draw(bench), fingerprint(bench.date, bench.command))


def _draw(bench: Bench) -> "Figure":
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state

    figure = Figure(figsize=(PANEL_INCHES * len(bench.models), PANEL_INCHES), layout="constrained")
    panels = figure.subplots(1, len(bench.models), squeeze=False)[0]
    for axes, model in zip(panels, bench.models, strict=True):
        _panel(axes, model, bench.threads[0])
    names = {label: point for axes in panels for point, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(names.values(), names.keys(), loc="outside lower center", ncols=3, fontsize="small")
    return figure


def _panel(axes: "Axes", model: ModelBench, threads: int) -> None:
    measured = [row for row in model.rows if row.score is not None]
    for row in measured:
        assert row.score is not None
        index = list(TITLES).index(row.name.removesuffix(IN_OPENVINO))
        latency = row.latencies[str(threads)]
        axes.errorbar(
            latency.median_ms,
            row.score.metric,
            xerr=[[latency.median_ms - latency.p10_ms], [latency.p90_ms - latency.median_ms]],
            fmt=MARKERS[index],
            color=f"C{index}",
            fillstyle="none" if row.name.endswith(IN_OPENVINO) else "full",
            label=title(row.name),
            capsize=2,
        )
    _at_least(axes, METRIC_SPAN)
    metric = next(row.score.name for row in model.rows if row.score)
    axes.set_title(model.name)
    axes.set_xlabel(f"ms, {threads} thread{'s' if threads > 1 else ''} (left is faster)")
    axes.set_ylabel(metric)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)


def _at_least(axes: "Axes", span: float) -> None:
    """Widen the metric's axis to `span`: a fraction of a point is not to fill the picture."""
    low, high = axes.get_ylim()
    missing = max(0.0, span - (high - low)) / 2
    axes.set_ylim(low - missing, high + missing)
