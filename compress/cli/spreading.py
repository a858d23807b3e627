"""Options that several commands share, listed once: the fields of a dataclass become options of each command."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters that are dataclasses are given by an option for each of their fields.

    Fields are annotated and have defaults as a command's own options do (`Annotated[type, typer.Option(...)]`). They
    stand where the parameter stands, which the command receives as one value.

    Args:
        command: a function; parameters behind `*` may come in any order.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, type] = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if isinstance(parameter.annotation, type) and dataclasses.is_dataclass(parameter.annotation)
    }
    parameters = [
        each
        for name, parameter in signature.parameters.items()
        for each in (_options(groups[name]) if name in groups else [parameter.replace(kind=_KIND)])
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        made = {
            name: group(**{option.name: given.pop(option.name) for option in _options(group)})
            for name, group in groups.items()
        }
        command(**made, **given)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


_KIND = inspect.Parameter.KEYWORD_ONLY


def _options(group: type) -> list[inspect.Parameter]:
    """A dataclass's fields as parameters."""
    assert dataclasses.is_dataclass(group)
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(field.name, _KIND, default=field.default, annotation=hints[field.name])
        for field in dataclasses.fields(group)
    ]
