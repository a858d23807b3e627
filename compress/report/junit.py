"""A run as JUnit XML, which CI systems show as tests: the run itself, and a case for each gate and set.

Source: the format as Jenkins' JUnit plugin, GitLab and GitHub actions read it (testsuites, testsuite, testcase,
failure, error).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from compress.artifacts import VAL, Gate, Report, SetResult
from compress.report.tables import AT_LEAST

RUN = "run"
"""The case that fails with an error where there is no report."""
SLACK = 1e-9
"""What float arithmetic may add to a figure that hits its limit."""
ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, in any form."""


@dataclass(frozen=True)
class Case:
    """One requirement on one set."""

    name: str
    required: float
    measured: float
    passed: bool
    at_least: bool

    @property
    def sign(self) -> str:
        """Between what is measured and what is required."""
        return ">=" if self.at_least else "<="


def gate_cases(report: Report) -> tuple[Case, ...]:
    """Every gate; one on a metric that holds for all test sets, once for each of them."""
    return tuple(case for gate in report.gates for case in _cases_of(gate, report))


def _cases_of(gate: Gate, report: Report) -> Iterator[Case]:
    at_least = gate.name.partition(".")[0] in AT_LEAST
    for name, value in _on_sets(gate, report):
        slack = SLACK * max(1.0, abs(gate.required))
        passed = value >= gate.required - slack if at_least else value <= gate.required + slack
        yield Case(f"{gate.name} ({name})", gate.required, value, passed, at_least)
    if not _on_sets(gate, report):
        name = f"{gate.name} ({gate.on})" if gate.on else gate.name
        yield Case(name, gate.required, gate.measured, gate.passed, at_least)


def _on_sets(gate: Gate, report: Report) -> list[tuple[str, float]]:
    """(test set, figure) of a gate that holds for every test set; of any other gate none."""
    kind, _, figure = gate.name.partition(".")
    if not gate.on or not report.stages or kind not in ("metric_drop", "metric_min", "worst_set"):
        return []
    last = report.stages[-1].stage
    tests = [one for one in report.sets if one.name != VAL]
    found = [(one.name, _figure(one, last, figure, kind)) for one in tests]
    return [(name, value) for name, value in found if value is not None]


def _figure(one: SetResult, stage: str, figure: str, kind: str) -> float | None:
    found = one.stages.get(stage, {}).get(figure or one.metric)
    if found is None:
        return None
    return found.value if kind == "metric_min" else found.drop


def junit_xml(report: Report) -> bytes:
    """The run and its gates, met or not."""
    cases = gate_cases(report)
    missed = sum(not case.passed for case in cases)
    suites, suite = _suite(report.title, tests=1 + len(cases), failures=missed, errors=0)
    _case(suite, RUN, report.title, seconds=sum(stage.seconds for stage in report.stages))
    for case in cases:
        element = _case(suite, case.name, report.title)
        said = f"measured {case.measured:.6g}, required {case.sign} {case.required:.6g}"
        if case.passed:
            ElementTree.SubElement(element, "system-out").text = said
        else:
            ElementTree.SubElement(element, "failure", message=_legal(f"{case.name}: {said}"), type="gate").text = said
    return _bytes(suites)


def error_xml(title: str, error: str) -> bytes:
    """A run that came to no report: one case with the error."""
    suites, suite = _suite(title, tests=1, failures=0, errors=1)
    lines = error.splitlines() or ["error"]
    element = _case(suite, RUN, title)
    ElementTree.SubElement(element, "error", message=_legal(lines[0]), type="error").text = _legal("\n".join(lines))
    return _bytes(suites)


def _suite(title: str, *, tests: int, failures: int, errors: int) -> tuple[ElementTree.Element, ElementTree.Element]:
    suites = ElementTree.Element("testsuites")
    counts = {"tests": str(tests), "failures": str(failures), "errors": str(errors), "skipped": "0"}
    return suites, ElementTree.SubElement(suites, "testsuite", {"name": _legal(title) or "compress", **counts})


def _case(suite: ElementTree.Element, name: str, title: str, seconds: float = 0.0) -> ElementTree.Element:
    attributes = {"classname": _legal(title) or "compress", "name": _legal(name), "time": f"{seconds:.1f}"}
    return ElementTree.SubElement(suite, "testcase", attributes)


def _legal(text: str) -> str:
    """
    >>> _legal("a\\x00b")
    'a?b'
    """
    return ILLEGAL.sub("?", text)


def _bytes(root: ElementTree.Element) -> bytes:
    ElementTree.indent(root)
    found: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return found + b"\n"
