"""docs/ci.md: workflows are YAML, their commands are ours, and the keys that it promises are there."""

import dataclasses
import re
import shlex
import types
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from compress import artifacts
from compress.artifacts import Report
from tests.documents import parse

PAGE = (Path(__file__).parents[1] / "docs" / "ci.md").read_text(encoding="utf-8")
WORKFLOWS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


def commands(workflow: dict[str, Any]) -> list[str]:
    """The shell lines of a workflow of GitHub Actions or GitLab CI."""
    job = workflow["jobs"]["compress"] if "jobs" in workflow else workflow["compress"]
    steps = [step["run"] for step in job["steps"] if "run" in step] if "steps" in job else job["script"]
    return [line for step in steps for line in step.splitlines()]


INLINE = re.findall(r"`(compress \w+ [^`]*\.yaml[^`]*|compress \w+ runs/[^`]*)`", PAGE)
LINES = [line for workflow in WORKFLOWS for line in commands(workflow) if line.startswith("compress ")]


def test_there_are_two_workflows_that_use_all_three_commands() -> None:
    assert len(WORKFLOWS) == 2
    for workflow in WORKFLOWS:
        names = [shlex.split(line)[1] for line in commands(workflow) if line.startswith("compress ")]
        assert names == ["check", "run", "compare"]
    assert len(INLINE) == 3


def test_a_cached_run_belongs_to_its_recipe() -> None:
    """A run of another recipe is refused as stale, and would fail the job after the first edit."""
    job = next(workflow["compress"] for workflow in WORKFLOWS if "compress" in workflow)
    assert job["cache"]["key"]["files"] == ["recipes/rec.yaml"]


@pytest.mark.parametrize("line", [*LINES, *INLINE])
def test_commands_are_ours(line: str) -> None:
    assert parse(line)


def test_another_option_would_be_noticed() -> None:
    assert parse("compress run r.yaml --junit j.xml")["junit"] == Path("j.xml")
    with pytest.raises(Exception, match="No such option"):
        parse("compress run r.yaml --junitxml j.xml")


def has(kind: Any, parts: list[str]) -> bool:
    """Whether an artefact of this type has the key; `[]` is an item of a list, `*` any name."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kind = next(one for one in typing.get_args(kind) if one is not type(None))
    if not parts:
        return not dataclasses.is_dataclass(kind)
    name, *rest = parts
    if name == "[]":
        return typing.get_origin(kind) is tuple and has(typing.get_args(kind)[0], rest)
    if name == "*":
        return typing.get_origin(kind) is dict and has(typing.get_args(kind)[1], rest)
    hints = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
    return name in hints and has(hints[name], rest)


TABLE = PAGE.split("<!-- stable keys -->")[1].split("<!-- end of stable keys -->")[0]
KEYS = [key for row in TABLE.splitlines()[3:] for key in re.findall(r"`([^`]+)`", row.split("|")[1] if row else "")]


@pytest.mark.parametrize("key", KEYS)
def test_stable_keys_are_there(key: str) -> None:
    assert has(Report, key.replace("[]", ".[]").split("."))


def test_the_version_is_said() -> None:
    assert len(KEYS) > 30
    assert f"`version` is {artifacts.VERSION}." in PAGE
    assert not has(Report, ["stages", "[]", "cost"]), "a whole object is promised by its keys"
    assert not has(Report, ["gates", "[]", "limit"])
