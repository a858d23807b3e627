"""Options of a dataclass become options of a command."""

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from compress.cli.spreading import spread


@dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Option(help="in pixels.")] = 4
    name: Annotated[str | None, typer.Option("--title")] = None


def test_fields_are_options_in_their_place_and_arrive_as_one_value() -> None:
    given = []
    app = typer.Typer()

    @app.command()
    @spread
    def draw(what: str, *, before: int = 1, size: Size, after: int = 2) -> None:
        given.append((what, before, size, after))

    runner = CliRunner()
    assert runner.invoke(app, ["box", "--width", "7", "--title", "a", "--after", "3"]).exit_code == 0
    assert runner.invoke(app, ["box"]).exit_code == 0
    assert given == [("box", 1, Size(7, "a"), 3), ("box", 1, Size(), 2)]
    assert runner.invoke(app, ["box", "--width", "wide"]).exit_code == 2
    shown = runner.invoke(app, ["--help"]).output
    assert [shown.index(option) for option in ("--before", "--width", "--title", "--after")] == sorted(
        shown.index(option) for option in ("--after", "--title", "--width", "--before")
    )
