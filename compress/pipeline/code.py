"""Which code and settings made a figure: a hash of every module that a stage's result depends on, and a recipe's keys.

Comments, docstrings and layout do not count: what is hashed is a module's syntax tree. Neither do modules that show,
check or store results: a figure is not another one because its table is printed otherwise. Settings are not code:
defaults are compared as part of the recipe. The trees are read from the package's own files, so an installed one
tells, too.
"""

import ast
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress import artifacts
from compress.recipe import Recipe

MIXED = "mixed"
"""In the place of a module's hash: it changed while the stage was computed."""
Read = Callable[[str], str | None]
"""The source of a module by its dotted name; None where there is none."""
_PLAIN = tuple(f"compress.{part}" for part in ("errors", "progress", "artifacts", "recipe", "report", "cli", "zoo"))
_PLAIN += ("compress.export.parity", "compress.export.replay")
_PLAIN += tuple(
    f"compress.pipeline.{part}"
    for part in (
        *("code", "state", "run", "worst_cases", "verifying", "scanning.cost"),
        *("stages.measure", "stages.report", "stages.gates", "stages.scores"),
    )
)
_MAKES_TASKS = "compress.pipeline.tasks"
_PRUNING = ("compress.prune", "compress.pipeline.stages.stored_plan")
STAGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "sensitivity": ("compress.pipeline.stages.scan", ()),
    "replaced": ("compress.pipeline.stages.replace", ()),
    "pruned": ("compress.pipeline.stages.prune", ()),
    "reconstructed": ("compress.pipeline.stages.reconstruct", ()),
    "teacher": ("compress.pipeline.stages.finetune", _PRUNING),
    "finetuned": ("compress.pipeline.stages.finetune", _PRUNING),
    "int8": ("compress.pipeline.stages.quantize", _PRUNING),
}
"""Stage -> the module that computes it, and what of its imports other stages need."""


@dataclass(frozen=True)
class Code:
    """Hashes of modules by name, as a stage that was begun leaves them."""

    modules: dict[str, str]
    version: int = artifacts.VERSION


def stage_code(stage: str, tasks: Iterable[str], read: Read | None = None) -> dict[str, str]:
    """The modules that a stage's result depends on, with their hashes.

    Args:
        stage: one of `STAGES`.
        tasks: modules of the task (see `task_modules`).
        read: where sources come from; by default this package.
    """
    if read is None:
        return dict(_installed_code(stage, tuple(tasks)))
    return _stage_code(stage, tuple(tasks), read)


def task_modules(task: object) -> tuple[str, ...]:
    """The modules of this package that a task is made of; a task of the user's own is known by what it builds on."""
    names = (kind.__module__ for kind in type(task).__mro__)
    return tuple(dict.fromkeys(name for name in names if name.startswith("compress.tasks.")))


def digest(modules: Mapping[str, str]) -> str:
    """One short hash for all."""
    return artifacts.fingerprint(dict(modules))


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> tuple[str, ...]:
    """Modules that both depend on, in different versions.

    >>> differing({"a": "1", "b": "2"}, {"a": "3", "c": "4"})
    ('a',)
    """
    return tuple(sorted(name for name in one.keys() & other.keys() if one[name] != other[name]))


def begin(file: Path, now: Mapping[str, str]) -> dict[str, str]:
    """The code that computes a stage, noted in `file` when it is begun.

    Where other code began, as after an update between two sessions, modules that differ are `MIXED`.
    """
    earlier = artifacts.load(Code, file).modules if file.is_file() else {}
    merged = merge(earlier, now)
    artifacts.save(Code(merged), file)
    return merged


def merge(earlier: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """What both together were made by.

    >>> merge({}, {"a": "1"}), merge({"a": "1"}, {"a": "2", "b": "3"})
    ({'a': '1'}, {'a': 'mixed', 'b': 'mixed'})
    """
    if not earlier:
        return dict(now)
    names = dict.fromkeys((*earlier, *now))
    return {name: now[name] if earlier.get(name) == now.get(name) else MIXED for name in names}


def source_hash(source: str) -> str:
    """Hash of what a module computes: of its syntax tree without docstrings.

    >>> [source_hash(text) == source_hash("x = 1") for text in ("'''Text.'''\\nx = (1)  # note", "x = 2")]
    [True, False]
    """
    return _tree_hash(ast.parse(source))


def recipe_settings(recipe: Recipe) -> dict[str, str]:
    """What of a recipe figures depend on, by key: not its gates, threads, workers, device and folders; of paths the
    last two parts."""
    kept = recipe.model_dump(exclude={"name", "out", "gates", "steps", "threads", "workers", "device"})
    kept["steps"] = {step.name: step.model_dump() for step in recipe.steps}
    kept["model"] = Path(recipe.model)
    return dict(flat_settings("", kept))


def flat_settings(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    """
    >>> dict(flat_settings("", {"a": {"b": 1, "c": (Path("x/y/z.txt"),)}}))
    {'a.b': '1', 'a.c': 'y/z.txt'}
    """
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from flat_settings(f"{prefix}.{key}" if prefix else str(key), each)
    else:
        values = value if isinstance(value, tuple | list) else [value]
        yield prefix, ", ".join("/".join(each.parts[-2:]) if isinstance(each, Path) else str(each) for each in values)


@functools.cache
def _installed_code(stage: str, tasks: tuple[str, ...]) -> Mapping[str, str]:
    return _stage_code(stage, tasks, _read_installed)


def _stage_code(stage: str, tasks: tuple[str, ...], read: Read) -> dict[str, str]:
    root, others = STAGES[stage]
    found: dict[str, str] = {}
    waiting = [root, _MAKES_TASKS, *tasks]
    while waiting:
        name = waiting.pop()
        if name in found or _is_under(name, (*_PLAIN, *others)):
            continue
        if (parsed := _parsed(name, read)) is None:
            continue  # not a module but a name in one
        found[name], imported = parsed
        # A pipeline's imports lead to every task there is; the one in question is named.
        waiting += [each for each in imported if each.startswith("compress.tasks.base") or not _is_task(name, each)]
    return dict(sorted(found.items()))


def _is_task(importer: str, name: str) -> bool:
    return not importer.startswith("compress.tasks") and name.startswith("compress.tasks")


def _parsed(name: str, read: Read) -> tuple[str, tuple[str, ...]] | None:
    """Hash and imports of a module; None where it has no source."""
    if read is _read_installed:
        return _parsed_installed(name)
    source = read(name)
    return None if source is None else _parse(source)


@functools.cache
def _parsed_installed(name: str) -> tuple[str, tuple[str, ...]] | None:
    source = _read_installed(name)
    return None if source is None else _parse(source)


def _parse(source: str) -> tuple[str, tuple[str, ...]]:
    tree = ast.parse(source)
    return _tree_hash(tree), tuple(dict.fromkeys(_imports(tree)))


def _read_installed(name: str) -> str | None:
    folder = Path(__file__).parents[1].joinpath(*name.split(".")[1:])
    for file in (folder.with_suffix(".py"), folder / "__init__.py"):
        if file.is_file():
            return file.read_text(encoding="utf-8")
    return None


def _imports(tree: ast.AST) -> Iterator[str]:
    """Names of this package that a module imports, at its top or inside functions: modules, or what is in them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("compress."))
        elif isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "compress":
            if node.module != "compress":
                yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_under(name: str, prefixes: Iterable[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _tree_hash(tree: ast.AST) -> str:
    found = hashlib.sha256()
    for part in _tokens(tree):
        found.update(part.encode() + b"\0")
    return found.hexdigest()[:12]


def _tokens(node: object) -> Iterator[str]:
    """A syntax tree as text that is the same in every version of Python; only what is set is named."""
    if isinstance(node, ast.AST):
        yield type(node).__name__
        for name, value in ast.iter_fields(node):
            if value is not None and value != [] and name not in ("ctx", "kind", "type_comment"):
                yield name
                yield from _tokens(value)
        yield ")"
    elif isinstance(node, list):
        for item in node:
            if not _is_docstring(item):
                yield from _tokens(item)
        yield "]"
    else:
        yield repr(node)


def _is_docstring(node: object) -> bool:
    """Any text that stands alone: of a module, class or function, or below a constant."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
