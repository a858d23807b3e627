"""Pages that hold figures: their tables and status lines, written from the registry."""

import re
from collections.abc import Callable, Iterator, Sequence

from figures.published import NAMED, REGISTRY, Published, Registry

from compress.errors import CompressError

PAGES = ("README.md", "docs/benchmarks.md", "docs/history.md")
BEGIN = re.compile(r"<!-- figures: (.+?) -->\s*")
TABLE = re.compile(r"<!-- table: (\S+) (.+?) -->\s*")
END, STATUS, HISTORY = "<!-- /figures -->", "<!-- status -->", "history"
NUMBER = re.compile(r"(?<![\w.])\d[\d.,]*(?!\w)")
"""In a row of a table: a table of words alone needs no block."""
METRIC = re.compile(r"(?<![\w.])[01]?\.\d{4}(?![\d.])")
"""What looks like a metric; outside of blocks there is none."""


def status_line(name: str, run: Published, changed: Sequence[str]) -> str:
    """What stands under a table of a run's figures."""
    more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
    stale = f"; **stale**, changed since: {', '.join(changed[:NAMED])}{more}" if changed else ""
    same = (
        f"; code changed since: a short run gives the same files then and at `{run.verified}`" if run.verified else ""
    )
    return f"- `{name}`: `{run.command}` at commit `{run.commit}`, {run.date}{same}{stale} {STATUS}"


def history_line(commits: Sequence[str]) -> str:
    """What stands under a table that is kept as it was."""
    names = ", ".join(f"`{commit}`" for commit in commits)
    return f"- history: measured at commit {names}, not measured again since {STATUS}"


# --- pages ---------------------------------------------------------------------------------------------------------


def marked(text: str, registry: Registry, changed: Callable[[str], Sequence[str]]) -> str:
    """A page with the tables and status lines of its blocks written anew.

    Raises:
        CompressError: a figure stands outside of any block, or a block names what is not recorded.
    """
    given = [line for line in text.splitlines() if not line.endswith(STATUS)]  # written below
    is_code = list(_code_lines(given))
    lines: list[str] = []
    runs: tuple[str, ...] | None = None
    said = False
    for index, line in enumerate(given):
        lines.append(line)
        if is_code[index]:
            continue
        if (begin := BEGIN.fullmatch(line)) is not None:
            if runs is not None:
                raise CompressError(f"{line}: the block before it has no {END}. Add it.")
            runs, said = tuple(begin[1].split()), False
            check_known(runs, registry)
        elif line.strip() == END:
            if runs is not None and not said:  # prose alone
                lines[-1:] = ["", *_status(runs, registry, changed), line]
            runs = None
        elif runs is None and (NUMBER if line.startswith("|") else METRIC).search(line):
            what = "table" if line.startswith("|") else "figure"
            raise CompressError(f"a {what} outside of any block: {line[:80]!r}. Put <!-- figures: ... --> around it.")
        elif runs is not None and line.startswith("|") and not "".join(given[index + 1 : index + 2]).startswith("|"):
            written = TABLE.fullmatch(_before_table(lines))
            if written is not None:
                _replace_table(lines, registry, written[1], written[2].split())
            lines += ["", *_status(runs, registry, changed), ""]
            said = True
    if runs is not None:
        raise CompressError(f"the last block, {' '.join(runs)}, has no {END}. Add it.")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def _code_lines(lines: Sequence[str]) -> Iterator[bool]:
    fenced = False
    for line in lines:
        fence = line.startswith("```")
        fenced ^= fence
        yield fenced or fence or line.startswith("    ")


def _before_table(lines: Sequence[str]) -> str:
    return next((line for line in reversed(lines) if not line.startswith("|")), "")


def _replace_table(lines: list[str], registry: Registry, table: str, names: Sequence[str]) -> None:
    check_known(names, registry)
    if not all(registry.runs[name].tables for name in names):
        return  # a command's: its table is written by hand
    missing = [name for name in names if table not in registry.runs[name].tables]
    if missing:
        raise CompressError(f"<!-- table: {table} ... -->: {', '.join(missing)} has no such table. Record it again.")
    while lines[-1].startswith("|"):
        lines.pop()
    rows = [row for name in names for row in registry.runs[name].tables[table][1:]]
    lines += markdown_table([registry.runs[names[0]].tables[table][0], *rows])


def markdown_table(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table; columns after the first stand to the right."""
    rule = ["---", *["---:"] * (len(cells[0]) - 1)]
    return ["| " + " | ".join(line) + " |" for line in (cells[0], rule, *cells[1:])]


def _status(runs: Sequence[str], registry: Registry, changed: Callable[[str], Sequence[str]]) -> list[str]:
    if runs[0] == HISTORY:
        return [history_line(runs[1:])]
    return [status_line(name, registry.runs[name], changed(name)) for name in runs]


def check_known(runs: Sequence[str], registry: Registry) -> None:
    if runs[0] == HISTORY:
        if len(runs) == 1 or not all(re.fullmatch(r"[0-9a-f]{7,40}", commit) for commit in runs[1:]):
            raise CompressError(f"<!-- figures: {' '.join(runs)} -->: must name commits after `history`, e.g. 6a61d06.")
        return
    unknown = [name for name in runs if name not in registry.runs]
    if unknown:
        known = ", ".join(registry.runs) or "none yet"
        raise CompressError(f"{', '.join(unknown)}: not recorded in {REGISTRY} (recorded: {known}). Use --record.")
