"""A scan at a glance: levels by hand, cells that were not measured, and layer names as they are."""

import io

from rich.console import Console

from compress.artifacts import Curve, Sensitivity
from compress.report import terminal
from compress.report.heat import HeatRow, heat_rows, heat_text

SCAN = Sensitivity(
    "f",
    "fpgm",
    "accuracy",
    0.8,
    (0.25, 0.5, 0.75),
    {
        "conv[1]": Curve(8, ("conv[1]",), 10, {"0.25": 0.8, "0.5": 0.795, "0.75": 0.1}),
        "b": Curve(8, ("b",), 10, {"0.25": 0.7}),
    },
)


def test_levels_and_what_was_not_measured() -> None:
    assert heat_rows(SCAN) == (HeatRow("conv[1]", (0, 0, 4), 0.5), HeatRow("b", (2, None, None), 0.0))


def test_lines() -> None:
    head, first, second, legend = heat_text(SCAN).splitlines()
    assert head.startswith("group    ratios 0.25, 0.5, 0.75")
    assert (first, second) == ("conv[1]  ··█  0.5", "b        ▒    0")
    assert legend.startswith("drop of accuracy .8000: · at most 1 %")


def test_on_a_terminal_names_keep_their_brackets() -> None:
    out = io.StringIO()
    terminal.print_heat(SCAN, Console(file=out, width=20))
    assert out.getvalue().rstrip("\n") == heat_text(SCAN)
    terminal.print_heat(Sensitivity("f", "fpgm", "accuracy", 0.8, (0.5,), {}), Console(file=out))
    assert out.getvalue().rstrip("\n") == heat_text(SCAN)
