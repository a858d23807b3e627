"""A module imports only from rows above its own, so that each can be read, tested and replaced without those below."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import compress

ROOT = Path(compress.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
ROWS = {
    "errors": 0,
    "progress": 0,
    **dict.fromkeys(("artifacts", "compute"), 1),
    **dict.fromkeys(("graph", "data", "measure"), 2),
    **dict.fromkeys(("tasks", "prune", "train", "quant"), 3),
    **dict.fromkeys(("export", "report"), 4),
    "zoo": 4,  # and see ZOO_MAY_IMPORT
    "recipe": 5,
    "pipeline": 6,
    **dict.fromkeys(("cli", "__init__"), 7),
    "__main__": 8,
}
"""Part of the package -> row. Parts of one row do not import one another."""
ZOO_MAY_IMPORT = {"errors", "artifacts", "graph", "zoo"}
ONLY_IN = {
    "onnxruntime": ("measure/session.py",),
    "openvino": ("measure/openvino.py",),
    "torch_pruning": ("prune/channel_dependencies.py",),
    "jinja2": ("report/html.py",),
    "lmdb": ("data/lmdb_folder.py",),
    "rapidfuzz": ("tasks/words.py",),
    "yaml": ("recipe/", "data/paddle_config.py"),
    "pydantic": ("recipe/", "cli/"),
    "typer": ("cli/",),
    "rich": ("cli/", "report/terminal.py"),
}
"""Third-party package -> where it may be imported."""


def part_of(path: Path) -> str:
    """The part of the package that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@cache
def imported(path: Path) -> tuple[str, ...]:
    """The dotted name of every module that a file imports, at its top or inside functions."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import. Use an absolute one."
            if node.module == "compress":
                names += [f"compress.{alias.name}" for alias in node.names]
            else:
                names.append(str(node.module))
    return tuple(names)


def parts_imported(path: Path) -> set[str]:
    """Parts of the package that a file imports; a name of `compress` itself counts as `__init__`."""
    names = [name.split(".") for name in imported(path) if name.split(".")[0] == "compress"]
    return {name[1] if len(name) > 1 and name[1] in ROWS else "__init__" for name in names}


def test_every_file_has_a_row() -> None:
    assert len(FILES) > 20
    assert {part_of(path) for path in FILES} <= set(ROWS), "A new part of the package needs a row here."


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_up_the_rows(path: Path) -> None:
    part = part_of(path)
    below = {other for other in parts_imported(path) if other != part and ROWS[other] >= ROWS[part]}
    assert not below, f"{path.name} (row {ROWS[part]}) imports {below}"


def test_zoo_needs_little() -> None:
    used = set().union(*(parts_imported(path) for path in FILES if part_of(path) == "zoo"))
    assert used <= ZOO_MAY_IMPORT


@pytest.mark.parametrize("package", ONLY_IN)
def test_third_parties_stay_where_they_are(package: str) -> None:
    users = [
        path.relative_to(ROOT).as_posix() for path in FILES if package in {n.split(".")[0] for n in imported(path)}
    ]
    assert [path for path in users if not path.startswith(ONLY_IN[package])] == []


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, compress.cli; print(sorted({'torch', 'onnx', 'cv2', 'matplotlib'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
