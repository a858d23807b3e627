"""Tables and lines of what layers cost in integers."""

from compress.artifacts import FloatChoice, LayerRounding, QuantSensitivity
from compress.report.quant_table import quant_lines, quant_table


def scan(**changes: object) -> QuantSensitivity:
    layers = {"cheap": LayerRounding(900, 0.995), "dear": LayerRounding(40, 0.8)}
    values: dict[str, object] = {"layers": layers, **changes}
    return QuantSensitivity("f", "divergence", 7, 0.99, 0.5, 1000, (3, 32, 320), **values)  # type: ignore[arg-type]


BUDGET = {
    "float_budget": 0.05,
    "choices": (FloatChoice("no layer", (), 0, 0.5), FloatChoice("largest drop", ("dear",), 40, 0.9)),
}


def test_dearest_layer_comes_first_and_empty_columns_are_left_out() -> None:
    table = quant_table(scan())
    assert table.header == ("layer", "share of MACs", "drop")
    assert table.rows == (("dear", "0.0400", "+0.1900"), ("cheap", "0.9000", "-0.0050"))
    assert table.title == "divergence drop of one layer in integers (7-bit weights)"


def test_parts_and_what_a_budget_chose_have_columns() -> None:
    parts = {"dear": LayerRounding(40, 0.8, weights=0.98, activations=0.83)}
    table = quant_table(scan(layers=parts, **BUDGET))
    assert table.header == ("layer", "share of MACs", "drop", "weights alone", "activations alone", "left in")
    assert table.rows == (("dear", "0.0400", "+0.1900", "+0.0100", "+0.1600", "float"),)


def test_lines_say_what_was_tried() -> None:
    assert quant_lines(scan()) == ("divergence 0.9900 in float with int8 weights, 0.5000 in integers",)
    assert quant_lines(scan(**BUDGET)) == (
        "float budget 0.05: divergence 0.9900 in float with int8 weights, 0.5000 in integers; tried: no layer "
        "(0 layers, 0.000 of MACs) 0.5000; largest drop (1 layers, 0.040 of MACs) 0.9000; left in float: dear",
    )
    nothing = scan(float_budget=0.05, choices=BUDGET["choices"][:1])  # type: ignore[index]
    assert quant_lines(nothing)[0].endswith("; no layer was left in float")
