"""JUnit XML and the summary say what a report's gates say, whatever its names hold."""

from xml.etree import ElementTree

import pytest

from compress.artifacts import VAL, Figure, Gate, SetResult
from compress.report.junit import Case, error_xml, gate_cases, junit_xml
from compress.report.summary import render_error, render_summary, verdict
from tests.report.test_report import make_report


def make_set(name: str, value: float, drop: float, **others: float) -> SetResult:
    figures = {"accuracy": Figure(value, drop), **{key: Figure(0.5, lost) for key, lost in others.items()}}
    whole = {"accuracy": Figure(value + drop, 0.0)}
    return SetResult(name, 100, "f", {"baseline": whole, "int8": figures}, "accuracy")


SETS = (make_set(VAL, 0.89, 0.01), make_set("street", 0.7, 0.03, alnum=0.06), make_set("lines", 0.95, -0.01))


def parse(xml: bytes) -> tuple[ElementTree.Element, dict[str, ElementTree.Element]]:
    """The suite, and its cases by name."""
    root = ElementTree.fromstring(xml)
    assert [child.tag for child in root] == ["testsuite"]
    return root[0], {str(case.get("name")): case for case in root[0]}


def test_a_case_for_each_gate_with_measured_and_required() -> None:
    suite, cases = parse(junit_xml(make_report()))
    assert list(cases) == ["run", "size_ratio", "metric_min"]
    assert {key: suite.get(key) for key in ("name", "tests", "failures", "errors")} == {
        **{"name": "demo", "tests": "3", "failures": "1", "errors": "0"}
    }
    assert cases["size_ratio"].find("failure") is None
    assert cases["size_ratio"].findtext("system-out") == "measured 0.25, required <= 0.35"
    failure = cases["metric_min"].find("failure")
    assert failure is not None
    assert failure.get("message") == "metric_min: measured 0.89, required >= 0.95"
    assert all(case.get("classname") == "demo" and float(case.get("time", "")) >= 0 for case in cases.values())


def test_a_gate_on_every_test_set_is_a_case_for_each() -> None:
    gates = (
        Gate("metric_drop", 0.02, 0.03, False, "street"),
        Gate("metric_min.lines", 0.9, 0.95, True),
        Gate("worst_set.alnum", 0.05, 0.06, False, "street"),
        Gate("metric_min", 0.7, 0.7, True, "street"),
    )
    assert gate_cases(make_report(gates=gates, sets=SETS)) == (
        Case("metric_drop (street)", 0.02, 0.03, False, False),
        Case("metric_drop (lines)", 0.02, -0.01, True, False),
        Case("metric_min.lines", 0.9, 0.95, True, True),
        Case("worst_set.alnum (street)", 0.05, 0.06, False, False),
        Case("metric_min (street)", 0.7, 0.7, True, True),
        Case("metric_min (lines)", 0.7, 0.95, True, True),
    )


def test_an_error_is_an_error_element() -> None:
    suite, cases = parse(error_xml("demo", "one\ntwo"))
    assert (suite.get("tests"), suite.get("errors"), suite.get("failures")) == ("1", "1", "0")
    error = cases["run"].find("error")
    assert error is not None
    assert (error.get("message"), error.text) == ("one", "one\ntwo")


@pytest.mark.parametrize(
    "title", ['a|b<script>&"', "line\nbreak", "nul\x00 and \x1b[31m", "", "Wörter \U0001f600 \ufffe"]
)
def test_any_name_is_valid_xml(title: str) -> None:
    gates = (Gate(title or "x", 1.0, 2.0, False),)
    assert parse(junit_xml(make_report(title=title, gates=gates)))[0].get("failures") == "1"
    assert parse(error_xml(title, title))[0].get("errors") == "1"


def test_the_summary_is_short() -> None:
    text = render_summary(make_report())
    lines = text.splitlines()
    assert lines[0] == "## demo: 1 of 2 gates missed (metric_min)"
    assert "| int8 |" in text
    assert "| metric_min | >= 0.95 | 0.89 | NO |" in text
    assert "parity" not in text
    assert len(lines) < 20
    assert text.endswith("\n\n"), "what is appended next is a paragraph of its own"


def test_verdicts() -> None:
    assert verdict(make_report(gates=(Gate("size_ratio", 0.35, 0.25, True),))) == "1 of 1 gates met"
    assert verdict(make_report(gates=())) == "done, no gates"
    assert render_error("demo", "one\ntwo") == "## demo: failed\n\n- one\n- two\n\n"
