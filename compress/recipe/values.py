"""What recipes are made of: kinds of values with their limits, and the classes of settings and steps."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Strict
from pydantic_core import PydanticCustomError

from compress.compute.names import DEVICES, is_device_name


def problem(text: str) -> PydanticCustomError:
    """A problem in our own words: what is allowed, and what to do."""
    return PydanticCustomError("recipe", "{text}", {"text": text})  # a field of its own: braces in it stay as they are


def rule(check: Callable[[Any], bool], allowed: str) -> AfterValidator:
    """Refuse a value that fails `check`, saying what is allowed."""

    def validate(value: Any) -> Any:
        if not check(value):
            raise problem(allowed)
        return value

    return AfterValidator(validate)


def yaml_float(value: Any) -> Any:
    """Read `1e-3`, which YAML 1.1 takes for text because it has no dot."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def one_or_many(value: Any) -> Any:
    """Let a list of one be written without brackets, and give pydantic the tuple it wants."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)")
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def seconds(value: Any) -> Any:
    """Read a duration; what is none stays as it is, to be refused.

    >>> [seconds(text) for text in ("5m", "90s", "1.5h", "20", 20, "soon")]
    [300.0, 90.0, 5400.0, 20.0, 20, 'soon']
    """
    found = DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    return float(found[1]) * SECONDS[found[2]] if found else value


def positive_number(value: Any) -> Any:
    """A number above 0, of whatever type; all problems in the same words."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise problem("Must be a time above 0. Use e.g. 5m, 90s or 1h.")
    return float(value)


MAX_THREADS = 1024
"""More than any machine has cores; libraries fail, each in its own way, where threads cannot be made."""
Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Int = Annotated[int, Strict(), rule(lambda v: abs(v) < 2**31, "Must be below 2147483648.")]
Float = Annotated[float, Strict(), BeforeValidator(yaml_float)]
Positive = Annotated[Int, rule(lambda v: v >= 1, "Must be 1 or more.")]
Threads = Annotated[Positive, rule(lambda v: v <= MAX_THREADS, f"Must be at most {MAX_THREADS}.")]
NotNegative = Annotated[Int, rule(lambda v: v >= 0, "Must be 0 or more.")]
PositiveFloat = Annotated[Float, rule(lambda v: v > 0, "Must be above 0.")]
NotNegativeFloat = Annotated[Float, rule(lambda v: v >= 0, "Must be 0 or more.")]
PruningRatio = Annotated[Float, rule(lambda v: 0 <= v < 1, "Must be a share in [0, 1). Use e.g. 0.3 to remove 30 %.")]
Share = Annotated[Float, rule(lambda v: 0 < v <= 1, "Must be a share in (0, 1]. Use e.g. 0.5.")]
Device = Annotated[str, rule(is_device_name, f"Must be {DEVICES}.")]
Duration = Annotated[
    float,
    BeforeValidator(lambda value: positive_number(seconds(value)), json_schema_input_type=float | str),
]
"""Seconds."""
Side = Annotated[Positive, rule(lambda v: v % 32 == 0, "Must be a multiple of 32. Use e.g. 960 or 1280.")]
Names = Annotated[tuple[Text, ...], BeforeValidator(one_or_many, json_schema_input_type=Text | tuple[Text, ...])]
Paths = Annotated[
    tuple[Path, ...],
    BeforeValidator(one_or_many, json_schema_input_type=Path | tuple[Path, ...]),
    rule(lambda v: len(v) > 0, "Must name one file or more."),
]

T = TypeVar("T")
TEST = "test"
"""What the only test set is called where the recipe gives it no name."""
SET_NAME = re.compile(r"[A-Za-z0-9_-]+")


def by_name(unnamed: str) -> Callable[[Any], Any]:
    """Let what belongs to one name, `unnamed`, be written without it.

    >>> by_name("test")("a.txt"), by_name("test")({"lines": "b.txt"})
    ({'test': 'a.txt'}, {'lines': 'b.txt'})
    """

    def name(value: Any) -> Any:
        if value is None:
            raise problem("Must be a value, or `name: value` of each. Remove the key where there is none.")
        return value if isinstance(value, dict) else {unnamed: value}

    return name


PathsByName = Annotated[
    dict[
        Annotated[Text, rule(lambda v: SET_NAME.fullmatch(v), "Must be of letters, digits, - and _. Use e.g. lines.")],
        Paths,
    ],
    BeforeValidator(by_name(TEST), json_schema_input_type=Paths | dict[str, Paths]),
]
ByName = Annotated[
    dict[Text, T],
    BeforeValidator(by_name(""), json_schema_input_type=float | dict[str, float]),
    rule(lambda v: len(v) > 0, "Must be a number, or `name: number`. Use e.g. {test: 0.01}."),
]
"""One value, then under "", or one for each name."""


class Settings(BaseModel):
    """Frozen, and nothing in it is silently ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=False)


class Step(Settings):
    """One entry of `steps`."""

    name: ClassVar[str]
