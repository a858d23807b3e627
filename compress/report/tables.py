"""A report's tables as plain text cells, so that the terminal, Markdown and HTML say the same."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from compress.artifacts import (
    VAL,
    ActivationScan,
    Candidate,
    Figure,
    Gallery,
    Gate,
    Latency,
    Report,
    Sensitivity,
    SetResult,
    StageResult,
)
from compress.measure.runtimes import Difference
from compress.report.formats import (
    NONE,
    count,
    drop_with_interval,
    images_of,
    kilobytes,
    milliseconds,
    parity,
    ratio,
    reading,
    scored,
    with_interval,
)

VALIDATION = "validation (chose epoch, ratios and form)"
AT_LEAST = ("metric_min", "speedup", "speedup_over_onnxruntime")
"""Gates with a smallest value; the others have a largest one."""
BYTES = ("size_bytes_max",)
DIFFERENCE_CAPTION = (
    "Random images: they tell of arithmetic, not of accuracy. In int8 one value that rounds the other way moves the "
    "output: the rows of onnxruntime without its optimisation show by how much."
)


@dataclass(frozen=True)
class Table:
    """Rows of text cells; columns after the first are figures and stand to the right, but for those in `words`."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[str, ...] = ()
    """Columns of sentences, by their names."""


def without(table: Table, *names: str) -> Table:
    """The table less some columns, where there is little width."""
    kept = [index for index, name in enumerate(table.header) if name not in names]
    rows = tuple(tuple(row[index] for index in kept) for row in table.rows)
    return Table(table.title, tuple(table.header[index] for index in kept), rows, table.words)


def stage_table(report: Report) -> Table:
    """Every stage: what its file costs, how fast and how good it is; ratios are against the first stage."""
    first = report.stages[0] if report.stages else None
    metric = first.score.name if first else "metric"
    where = f"{VAL} " if test_sets(report) else ""
    header = (
        *("stage", "params", "MACs", "KB", "ms [p10-p90]", "speed"),
        *(f"{where}{metric}", f"{where}drop", "parity", "file"),
    )
    return Table("Stages", header, tuple(_stage_row(stage, first) for stage in report.stages))


def _stage_row(stage: StageResult, first: StageResult | None) -> tuple[str, ...]:
    base = first or stage
    latency = stage.latency
    return (
        stage.stage,
        count(stage.cost.params),
        f"{count(stage.cost.macs)} ({ratio(stage.cost.macs, base.cost.macs)})",
        f"{kilobytes(stage.cost.size_bytes)} ({ratio(stage.cost.size_bytes, base.cost.size_bytes)})",
        milliseconds(latency) if latency else NONE,
        f"{latency.speedup:.2f}x" if latency and latency.speedup is not None else NONE,
        f"{stage.score.metric:.4f}",
        f"{base.score.metric - stage.score.metric:+.4f}",
        parity(stage.parity) if stage.parity else NONE,
        stage.file,
    )


def file_table(report: Report) -> Table:
    """Every stage's file, how long it took, and how near an exported file is to its network."""
    rows = tuple(
        (
            stage.stage,
            stage.file,
            f"{stage.seconds:.0f}" if stage.seconds else NONE,
            parity(stage.parity) if stage.parity else NONE,
        )
        for stage in report.stages
    )
    return Table("Files and parity", ("stage", "file", "seconds", "parity"), rows)


def test_sets(report: Report) -> tuple[SetResult, ...]:
    """The test sets, the one where the last file loses most first."""
    found = [one for one in report.sets if one.name != VAL]
    return tuple(sorted(found, key=lambda one: -_last(report, one).drop))


def _last(report: Report, one: SetResult) -> Figure:
    """The metric of the run's last file on a set."""
    return one.stages[report.stages[-1].stage][one.metric]


def headlines(report: Report) -> tuple[str, ...]:
    """What the last file makes of each test set, or of the validation data where there are none; the worst first."""
    if not report.stages or not report.sets:
        return ()
    stage, names = report.stages[-1].stage, _figure_names(report)
    return tuple(
        f"{stage} on {set_name(one)}, {images_of(one.images, one.skipped)}: "
        + "; ".join(
            f"{name} {with_interval(figures[name])}, drop {drop_with_interval(figures[name])}"
            for name in names
            if name in figures
        )
        for one, figures in ((one, one.stages[stage]) for one in test_sets(report) or report.sets)
    )


def _figure_names(report: Report) -> tuple[str, ...]:
    """Figures of the sets, their metrics first: the test sets' one, then the validation's, where that is another."""
    sets = (*test_sets(report), *report.sets)
    names = {name for one in sets for figures in one.stages.values() for name in figures}
    return tuple(dict.fromkeys((*(one.metric for one in sets), *sorted(names))))


def set_name(one: SetResult) -> str:
    """A set as the report calls it."""
    return VALIDATION if one.name == VAL else one.name


def set_table(report: Report, metrics_alone: bool = False) -> Table:
    """Every file on every set, with 95 % intervals; the test set where the last file loses most first, validation last.

    Without rows where no score says anything of single images, and there are no test sets: the stages' table has it.
    """
    sets = (*test_sets(report), *(one for one in report.sets if one.name == VAL))
    names = tuple(dict.fromkeys(one.metric for one in sets)) if metrics_alone else _figure_names(report)
    rows = tuple(
        (one.name, stage.stage, *_figure_cells(one.stages[stage.stage], names))
        for one in sets
        for stage in report.stages
    )
    found = [figure for one in sets for figures in one.stages.values() for figure in figures.values()]
    known = len(sets) > 1 or any(figure.interval for figure in found)
    title = "Test sets" if len(sets) > 1 else "Metric"
    header = ("set", "stage", *(cell for name in names for cell in (f"{name} [95 %]", "drop [95 %]")))
    return Table(title, header, rows if known else ())


def _figure_cells(figures: Mapping[str, Figure], names: Sequence[str]) -> tuple[str, ...]:
    """Value and drop of each figure."""
    return tuple(
        cell
        for name in names
        for cell in (
            (with_interval(figures[name]), drop_with_interval(figures[name])) if name in figures else (NONE, NONE)
        )
    )


def set_lines(report: Report) -> tuple[str, ...]:
    """What the table of sets says, and what each set is."""
    if not set_table(report).rows:
        return ()
    sizes = ", ".join(
        f"{set_name(one)}: {images_of(one.images, one.skipped)}" for one in (*test_sets(report), *report.sets[:1])
    )
    return (
        "In brackets: 95 % intervals, from a bootstrap over images. drop: against the original, its interval from both "
        "files on the same resampled images.",
        f"{VAL} is {sizes}." if not test_sets(report) else f"{sizes}. Nothing was chosen by the test sets.",
    )


def plan_table(report: Report) -> Table:
    """The channels kept per group."""
    rows = tuple(
        (name, count(group["channels"]), count(group["kept"]), f"{group['pruning_ratio']:.1%}")
        for name, group in report.plan.items()
    )
    return Table("Pruning plan", ("group", "channels", "kept", "removed"), rows)


def candidate_table(report: Report) -> Table:
    """The plans that were tried, the best first; the scan's own has number 0."""
    found = report.candidates
    if found is None:
        return Table("", (), ())
    whole = report.stages[0].cost.macs if report.stages else 0
    order = sorted(enumerate(found.rows), key=lambda numbered: (-numbered[1].score, numbered[0]))
    rows = tuple(
        (str(number), row.origin, f"{row.macs / max(1, whole):.3f}x", *_predicted(row), f"{row.score:.4f}")
        for number, row in order
    )
    title = f"Plans that were tried (recover: {found.recover} on {found.images} training images)"
    return Table(title, ("plan", "from", "MACs", "predicted ms", found.measure), rows)


def _predicted(row: Candidate) -> tuple[str]:
    return (NONE if row.latency is None else f"{row.latency:.3f}",)


def gate_table(report: Report) -> Table:
    """What was required, and whether it is met."""
    return Table("Gates", ("gate", "required", "measured", "met"), tuple(_gate_row(gate) for gate in report.gates))


def _gate_row(gate: Gate) -> tuple[str, ...]:
    sign = ">=" if gate.name.partition(".")[0] in AT_LEAST else "<="
    required, measured = (
        f"{value:,.0f}" if gate.name in BYTES else f"{value:.4g}" for value in (gate.required, gate.measured)
    )
    name = f"{gate.name} ({gate.on})" if gate.on else gate.name
    return name, f"{sign} {required}", measured, "yes" if gate.passed else "NO"


def detail_table(report: Report) -> Table:
    """The further figures of each stage's score, a column for each."""
    names = tuple(dict.fromkeys(name for stage in report.stages for name in stage.score.details))
    rows = tuple(
        (
            stage.stage,
            count(stage.score.count),
            *(f"{stage.score.details[name]:.4f}" if name in stage.score.details else NONE for name in names),
        )
        for stage in report.stages
    )
    title = "Validation scores in detail" if test_sets(report) else "Scores in detail"
    return Table(title, ("stage", "images", *names), rows if names else ())


def sensitivity_table(sensitivity: Sensitivity) -> Table:
    """Metric drop per group and ratio; a negative drop is noise, and is shown as it is."""
    rows = tuple(
        (
            name,
            str(curve.channels),
            *(
                f"{sensitivity.baseline - curve.metric[key]:+.4f}" if (key := f"{step:g}") in curve.metric else NONE
                for step in sensitivity.ratios
            ),
        )
        for name, curve in sensitivity.curves.items()
    )
    title = f"{sensitivity.metric_name} drop per pruning ratio ({sensitivity.criterion})"
    return Table(title, ("group", "channels", *(f"{step:g}" for step in sensitivity.ratios)), rows)


def activation_table(scan: ActivationScan, replaced: Collection[str]) -> Table:
    """Metric drop of each activation's replacement alone, the cheapest first; a negative drop is noise."""
    rows = tuple(
        (name, f"{scan.drop(name):+.4f}", "yes" if name in replaced else "no")
        for name in sorted(scan.metric, key=scan.drop)
    )
    title = f"{scan.metric_name} drop of one {scan.original} replaced by {scan.replacement}"
    return Table(title, ("activation", "drop", "replaced"), rows)


def latency_table(latencies: Mapping[tuple[str, str], Latency], sizes: Mapping[str, int]) -> Table:
    """Files timed against each other; by file and runtime."""
    rows = tuple(
        (
            file,
            runtime,
            kilobytes(sizes[file]) if file in sizes else NONE,
            f"{latency.median_ms:.3f}",
            f"{latency.p10_ms:.3f}",
            f"{latency.p90_ms:.3f}",
            f"{latency.speedup:.2f}x" if latency.speedup is not None else NONE,
            str(latency.threads),
            str(latency.runs),
        )
        for (file, runtime), latency in latencies.items()
    )
    header = ("file", "runtime", "KB", "median ms", "p10", "p90", "speed", "threads", "runs")
    return Table("Latency", header, rows)


def difference_table(differences: Sequence[Difference]) -> Table:
    """How far each file's outputs in other runtimes are from those in onnxruntime."""
    rows = tuple(
        (one.file, one.runtime, f"{one.max_abs:.2g}", f"{one.mean_abs:.2g}", f"{one.largest:.2g}", str(one.count))
        for one in differences
    )
    header = ("file", "runtime", "largest difference", "mean", "largest output", "images")
    return Table("First output against onnxruntime's", header, rows)


def placement_table(report: Report) -> Table:
    """Region by region, in the order of the network: what it computes in, and why; without rows where not chosen."""
    found = report.placement
    rows = tuple(
        (
            region.first if region.operators == 1 else f"{region.first} ... {region.last}",
            str(region.operators),
            region.precision,
            f"{region.float_ms:.3f}",
            NONE if region.int8_ms is None else f"{region.int8_ms:.3f}",
            region.reason,
        )
        for region in (found.regions if found else ())
    )
    title = f"Placement ({found.optimize}: {found.chosen})" if found else "Placement"
    return Table(title, ("operators", "count", "type", "float ms", "int8 ms", "reason"), rows)


def gallery_table(gallery: Gallery) -> Table:
    """The worst cases as text: what the label says, and what each model made of it."""
    rows = tuple(
        (
            picture.name,
            picture.label,
            *(reading(found) for found in picture.readings),
            f"{picture.readings[-1].error:.2f}",
        )
        for picture in gallery.pictures
    )
    return Table(gallery_title(gallery), ("image", "label", *gallery.models, "error"), rows)


def gallery_title(gallery: Gallery) -> str:
    """Whose worst cases they are."""
    return f"Worst cases of {gallery.models[-1]}"


def gallery_lines(gallery: Gallery) -> tuple[str, ...]:
    """How many images went wrong, and which of them are shown."""
    first, last, shown = gallery.models[0], gallery.models[-1], len(gallery.pictures)
    if len(gallery.models) == 1:
        lines = [f"{gallery.wrong[0]} of {gallery.images} images are not wholly right."]
    else:
        numbers = ", ".join(f"{model} {wrong}" for model, wrong in zip(gallery.models, gallery.wrong, strict=True))
        lines = [
            f"Of {gallery.images} images not wholly right: {numbers}.",
            f"Against {first}, {last} loses {gallery.lost} and fixes {gallery.mended}; "
            f"its error is above {first}'s on {gallery.worse} and below it on {gallery.better}.",
        ]
    if shown:
        order = "" if len(gallery.models) == 1 else f", by {last}'s error, then by how much worse than {first} it is"
        lines.append(f"Shown: the worst {shown}{order}. Error: {gallery.error_name}.")
    return tuple(lines)


def scored_line(report: Report) -> str:
    """What the metrics of a run are of; empty where nothing was skipped."""
    score = report.stages[-1].score if report.stages else None
    return f"{score.name} on {scored(score)}" if score and score.skipped else ""


def notes(report: Report) -> tuple[str, ...]:
    """The run's notes, then each stage's."""
    return (*report.notes, *(f"{stage.stage}: {note}" for stage in report.stages for note in stage.notes))
