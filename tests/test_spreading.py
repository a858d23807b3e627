"""Options of a dataclass, and keys of a recipe, become options of a command."""

import inspect
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
import typer
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from compress.cli.spreading import Keys, spread
from compress.errors import CompressError


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


class Ranges(BaseModel):
    enabled: bool = Field(True, description="learn them")
    l2: float = Field(0.5, description="L2 on them")


class Step(BaseModel):
    lr: float = Field(1e-3, description="highest `rate`; default low")
    kind: Literal["adam", "sgd"] = Field("adam", description="the optimiser")
    ratios: tuple[float, ...] = Field((0.5,), description="to try")
    limit: int | None = Field(None, description="at most")
    ranges: Ranges = Field(default_factory=Ranges, description="keys below")
    hidden: int = Field(3, description="not an option")


def command(given: list[Step]) -> typer.Typer:
    """A command of the settings."""
    app = typer.Typer()
    keys = Keys(
        without=("hidden",),
        flags={"ranges.enabled": "--ranges/--no-ranges"},
        read={"ratios": lambda text: text.split(",")},
    )

    @app.command()
    @spread
    def train(step: Annotated[Step, keys]) -> None:
        given.append(step)

    return app


def test_keys_of_settings_are_options_with_their_help_and_default() -> None:
    given: list[Step] = []
    app = command(given)
    assert CliRunner().invoke(app, []).exit_code == 0
    typed = ["--lr", "0.1", "--kind", "sgd", "--ratios", "0.25,0.5", "--limit", "7", "--no-ranges", "--ranges-l2", "2"]
    assert CliRunner().invoke(app, typed).exit_code == 0
    nested = Ranges(enabled=False, l2=2.0)
    assert given == [Step(), Step(lr=0.1, kind="sgd", ratios=(0.25, 0.5), limit=7, ranges=nested)]
    assert given[0].model_fields_set == set()
    assert "hidden" not in given[1].model_fields_set
    options = inspect.signature(app.registered_commands[0].callback).parameters  # type: ignore[arg-type]
    assert list(options) == ["lr", "kind", "ratios", "limit", "ranges_enabled", "ranges_l2"]
    help_of = {name: option.annotation.__metadata__[0].help for name, option in options.items()}
    assert help_of["lr"] == "highest rate.  [default: 0.001]"
    assert help_of["ranges_l2"] == "L2 on them.  [default: 0.5]"


@pytest.mark.parametrize(
    ("typed", "said"),
    [(["--kind", "lion"], "--kind: "), (["--ranges-l2", "inf", "--ratios", "a"], "--ratios")],
)
def test_a_value_that_the_settings_refuse_names_its_option(typed: list[str], said: str) -> None:
    result = CliRunner().invoke(command([]), typed)
    assert isinstance(result.exception, CompressError)
    assert said in str(result.exception)


def test_only_some_keys_are_options() -> None:
    given: list[Step] = []
    app = typer.Typer()

    @app.command()
    @spread
    def train(step: Annotated[Step, Keys(only=("limit", "ranges"))]) -> None:
        given.append(step)

    assert CliRunner().invoke(app, ["--limit", "2", "--ranges-l2", "1"]).exit_code == 0
    assert given == [Step(limit=2, ranges=Ranges(l2=1.0))]
    assert CliRunner().invoke(app, ["--lr", "1"]).exit_code == 2
