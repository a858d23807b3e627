"""What each layer costs in integers, as tables and lines."""

from compress.artifacts import FloatChoice, QuantSensitivity, Report
from compress.report.formats import NONE
from compress.report.tables import Table


def quant_table(scan: QuantSensitivity) -> Table:
    """Each layer alone in integers, the dearest first; a negative drop is noise, and is shown as it is."""
    chosen = scan.chosen
    rows = tuple(
        (
            name,
            f"{layer.macs / scan.macs:.4f}",
            f"{scan.drop(name):+.4f}",
            _drop(scan, layer.weights),
            _drop(scan, layer.activations),
            "" if chosen is None else "float" if name in chosen.layers else "int8",
        )
        for name, layer in sorted(scan.layers.items(), key=lambda entry: -scan.drop(entry[0]))
    )
    header = ("layer", "share of MACs", "drop", "weights alone", "activations alone", "left in")
    # Columns that no layer has anything in say nothing.
    filled = [index for index in range(len(header)) if any(row[index] not in ("", NONE) for row in rows)]
    title = f"{scan.metric_name} drop of one layer in integers ({scan.weight_bits}-bit weights)"
    return Table(title, tuple(header[i] for i in filled), tuple(tuple(row[i] for i in filled) for row in rows))


def report_quant_table(report: Report) -> Table:
    """The same of a run's report; without rows where nothing was measured."""
    found = report.quant_sensitivity
    return Table("", (), ()) if found is None else quant_table(found)


def quant_lines(scan: QuantSensitivity) -> tuple[str, ...]:
    """What the network scores in float and in integers, and what a budget came to."""
    figures = f"{scan.metric_name} {scan.baseline:.4f} in float with int8 weights, {scan.integer:.4f} in integers"
    chosen = scan.chosen
    if chosen is None:
        return (figures,)
    tried = "; ".join(_choice(scan, choice) for choice in scan.choices)
    kept = f"left in float: {', '.join(chosen.layers)}" if chosen.layers else "no layer was left in float"
    return (f"float budget {scan.float_budget:g}: {figures}; tried: {tried}; {kept}",)


def _choice(scan: QuantSensitivity, choice: FloatChoice) -> str:
    return f"{choice.origin} ({len(choice.layers)} layers, {choice.macs / scan.macs:.3f} of MACs) {choice.score:.4f}"


def _drop(scan: QuantSensitivity, metric: float | None) -> str:
    return NONE if metric is None else f"{scan.baseline - metric:+.4f}"
