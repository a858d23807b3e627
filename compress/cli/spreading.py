"""Options that several commands share, or that are keys of a recipe, are listed once and become options of commands."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from compress.cli.options import build, setting


@dataclass(frozen=True)
class Keys:
    """Marks a command's parameter that is a recipe's settings: `Annotated[FinetuneStep, Keys()]`.

    Each key is an option with the recipe's help and default, and the command receives the settings, checked as the
    recipe's are; which ones were given is their `model_fields_set`. Keys of settings within settings are joined:
    `pact.l2` is `--pact-l2`.
    """

    only: tuple[str, ...] = ()
    """Keys that are options; default all."""
    without: tuple[str, ...] = ()
    """Keys that are not."""
    flags: Mapping[str, str] = field(default_factory=dict)
    """Key -> its flags, where they are not its name: `--freeze-bn/--live-bn`."""
    read: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    """Key -> what makes its value of text, where it is not a plain number, flag or word."""
    types: Mapping[str, Any] = field(default_factory=dict)
    """Key -> the option, where it is none of these either."""


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters that are dataclasses, or settings marked by `Keys`, are given by an option for each of
    their fields.

    A dataclass's fields are annotated and have defaults as a command's own options do (`Annotated[type,
    typer.Option(...)]`). Options stand where the parameter stands, which the command receives as one value.

    Args:
        command: a function; parameters behind `*` may come in any order.
    """
    signature = inspect.signature(command, eval_str=True)
    groups = {name: made for name, parameter in signature.parameters.items() if (made := _group(parameter.annotation))}
    parameters = [
        each
        for name, parameter in signature.parameters.items()
        for each in (groups[name].options if name in groups else [parameter.replace(kind=_KIND)])
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        made = {
            name: group.make({option.name: given.pop(option.name) for option in group.options})
            for name, group in groups.items()
        }
        command(**made, **given)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


_KIND = inspect.Parameter.KEYWORD_ONLY


@dataclass(frozen=True)
class _Group:
    """A parameter's options, and what makes its value of them."""

    options: list[inspect.Parameter]
    make: Callable[[dict[str, Any]], Any]


def _group(annotation: Any) -> _Group | None:
    """What a parameter is spread to; None of an option like others."""
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return _Group(_fields(annotation), lambda given: annotation(**given))
    marks = [mark for mark in getattr(annotation, "__metadata__", ()) if isinstance(mark, Keys)]
    return _settings(get_args(annotation)[0], marks[0]) if marks else None


def _fields(group: type) -> list[inspect.Parameter]:
    """A dataclass's fields as parameters."""
    assert dataclasses.is_dataclass(group)
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            one.name,
            _KIND,
            default=inspect.Parameter.empty if one.default is dataclasses.MISSING else one.default,
            annotation=hints[one.name],
        )
        for one in dataclasses.fields(group)
    ]


def _settings(model: type[BaseModel], keys: Keys) -> _Group:
    """A recipe's settings as options that are None where they are not given."""
    paths = {key.replace(".", "_"): key for key in _keys(model, keys)}
    options = [
        inspect.Parameter(name, _KIND, default=None, annotation=_option(model, key, keys))
        for name, key in paths.items()
    ]

    def make(given: dict[str, Any]) -> BaseModel:
        values: dict[str, Any] = {}
        for name, value in given.items():
            if value is None:
                continue
            *outer, key = paths[name].split(".")
            inner = values.setdefault(outer[0], {}) if outer else values
            inner[key] = keys.read[paths[name]](value) if paths[name] in keys.read else value
        return build(model, values)

    return _Group(options, make)


def _keys(model: type[BaseModel], keys: Keys, outer: str = "") -> Iterator[str]:
    for name, one in model.model_fields.items():
        key = f"{outer}{name}"
        if key in keys.without or (keys.only and not outer and key not in keys.only):
            continue
        if isinstance(one.annotation, type) and issubclass(one.annotation, BaseModel):
            yield from _keys(one.annotation, keys, f"{key}.")
        else:
            yield key


def _option(model: type[BaseModel], key: str, keys: Keys) -> Any:
    if key in keys.types:
        return keys.types[key]
    *outer, name = key.split(".")
    if outer:
        inner = model.model_fields[outer[0]].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        model = inner
    kind = str if key in keys.read else _plain(model.model_fields[name].annotation)
    flag = keys.flags.get(key, f"--{key.replace('_', '-').replace('.', '-')}")
    return Annotated[kind | None, setting(model, name, flag)]


def _plain(annotation: Any) -> type:
    """The type of a value as it is typed: of words and numbers to choose from, theirs; of `X | None`, that of X."""
    if get_origin(annotation) is Literal:
        return type(get_args(annotation)[0])
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation
    return next(_plain(one) for one in get_args(annotation) if one is not type(None))
