"""Tie published figures to the code and the recipe that made them.

    python scripts/check_figures.py --check                     exit with 1 where a mark is missing or wrong
    python scripts/check_figures.py                             write the marks anew: tables, and what is stale
    python scripts/check_figures.py --record ppocr_det --run runs/ppocr_det      after a run of its recipe
    python scripts/check_figures.py --record bench --recipe recipes/demo_cls.yaml --command 'make bench'
    python scripts/check_figures.py --record old --recipe recipes/demo_cls.yaml --command 'make bench' --at 6a61d06
    python scripts/check_figures.py --verify ppocr_det --before runs/short_then --after runs/short_now

README.md, docs/benchmarks.md and docs/history.md hold figures in blocks only:

    <!-- figures: ppocr_det ppocr_cls -->
    <!-- table: stages ppocr_det -->
    | a table (sets, stages, details, gates or summary) that is written from that run's report |

    - `ppocr_det`: `compress run ...` at commit `abc1234`, 2026-11-21 <!-- status -->
    <!-- /figures -->

Each table of a block is followed by a line for each of its runs: command, commit, date, and in bold what has changed
since, which makes the figures stale. docs/figures.json holds, of each run, its settings and a hash of every module that
it depends on (`compress.pipeline.code`), so that any change of a loss, of targets, training, pruning, quantisation,
export or the recipe makes --check fail until the recipe is run again and recorded, or the mark is written, for everyone
to see. A block `<!-- figures: history abc1234 -->` names the commit of figures that are kept, but not measured again.

Recording refuses a run that other code made, in part or as a whole, and code that is not committed.

A change that cannot move a figure (another error message, a check of input) need not cost hours. --verify compares two
short runs of the recipe, say with one epoch a step and few images: one made by the code that made the figures, one by
the code as it is now. Where every file and every score of both is the same to the last bit, the figures stand, and
their line says how that was verified. A short run meets every module once; what only a long one meets, it does not
prove.
"""

import argparse
import dataclasses
import functools
import io
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress import artifacts
from compress.artifacts import Figure, Report, Sensitivity, SetResult, StageResult
from compress.errors import CompressError
from compress.measure.machine import machine_info
from compress.pipeline.code import differing, flat_settings, recipe_settings, stage_code
from compress.pipeline.stages.measure import PEER
from compress.pipeline.state import Record
from compress.recipe import Recipe, load_recipe
from compress.recipe.schema import STEPS
from compress.report import tables

ROOT = Path(__file__).parents[1]
REGISTRY = "docs/figures.json"
PAGES = ("README.md", "docs/benchmarks.md", "docs/history.md")
BEGIN = re.compile(r"<!-- figures: (.+?) -->\s*")
TABLE = re.compile(r"<!-- table: (\S+) (.+?) -->\s*")
END, STATUS, HISTORY = "<!-- /figures -->", "<!-- status -->", "history"
NUMBER = re.compile(r"(?<![\w.])\d[\d.,]*(?!\w)")
"""In a row of a table: a table of words alone needs no block."""
METRIC = re.compile(r"(?<![\w.])[01]?\.\d{4}(?![\d.])")
"""What looks like a metric; outside of blocks there is none."""
STAGE_OF = {"teacher": "teacher", "sensitivity": "sensitivity", "replace": "replaced", "prune": "pruned",
            "reconstruct": "reconstructed", "finetune": "finetuned", "quantize": "int8"}  # fmt: skip
"""A recipe's step -> the stage that it computes."""
NAMED = 4
"""So many changes are named, the rest is counted."""
Read = Callable[[str], str | None]


@dataclass(frozen=True)
class Published:
    """A run whose figures are published."""

    title: str
    command: str
    recipes: tuple[str, ...]
    """Recipe files, relative to the repository."""
    changes: tuple[str, ...]
    """`KEY=VALUE` that the command changed in them."""
    commit: str
    date: str
    machine: str
    settings: dict[str, str]
    code: dict[str, str]
    tables: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    """Name of a table of the report -> its lines of cells, the header first."""
    verified: str = ""
    """Where code has changed since: the commit at which a short run gave the same files as at `commit`."""
    verified_by: str = ""
    """That short run's command."""


@dataclass(frozen=True)
class Registry:
    """docs/figures.json."""

    runs: dict[str, Published]
    version: int = artifacts.VERSION


# --- what figures depend on ----------------------------------------------------------------------------------------


def code_of(recipe: Recipe, read: Read | None = None) -> dict[str, str]:
    """Hashes of all modules that the stages of a recipe depend on."""
    found: dict[str, str] = {}
    for step in recipe.steps:
        found |= stage_code(STAGE_OF[step.name], (f"compress.tasks.{recipe.task.kind}",), read)
    return dict(sorted(found.items()))


def changes_since(run: Published, root: Path = ROOT) -> tuple[str, ...]:
    """What a run's figures depend on and has changed: modules, and settings of its recipe."""
    try:
        recipes = [load_recipe(root / name, run.changes, check_files=False) for name in run.recipes]
    except CompressError as error:
        return (str(error).splitlines()[0],)
    now_code: dict[str, str] = {}
    now_settings: dict[str, str] = {}
    for recipe in recipes:
        now_code |= code_of(recipe)
        now_settings |= named_settings(recipe, len(recipes))
    modules = sorted(name for name in {*now_code, *run.code} if now_code.get(name) != run.code.get(name))
    settings = [key for key, value in run.settings.items() if now_settings.get(key) != value]
    added = [key for key in now_settings if key not in run.settings]
    settings += [key for key in added if not _is_new_default(key, now_settings, run)]
    return (*(f"`{name.removeprefix('compress.')}`" for name in modules), *(f"recipe's `{key}`" for key in settings))


def _is_new_default(key: str, now: Mapping[str, str], run: Published) -> bool:
    """Whether a setting that the run did not know is one that recipes have had since, at its default."""
    path = key.split(": ")[-1].split(".")
    if path[0] == "steps":
        if not any(known.split(": ")[-1].startswith(f"steps.{path[1]}.") for known in run.settings):
            return False  # a step of its own
        kind: Any = STEPS[path[1]]
        path = path[2:]
    else:
        kind = Recipe
    for name in path[:-1]:
        kind = kind.model_fields[name].annotation if name in kind.model_fields else None
        if kind is None or not hasattr(kind, "model_fields"):
            return False  # an entry of a mapping, e.g. a test set
    found = kind.model_fields.get(path[-1])
    if found is None or found.is_required():
        return False
    return now[key] == dict(flat_settings("", found.get_default(call_default_factory=True))).get("")


def named_settings(recipe: Recipe, of: int) -> dict[str, str]:
    """Settings, under the recipe's name where there are several."""
    return {f"{recipe.name}: {key}" if of > 1 else key: value for key, value in recipe_settings(recipe).items()}


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
            _check_known(runs, registry)
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
    _check_known(names, registry)
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


def _check_known(runs: Sequence[str], registry: Registry) -> None:
    if runs[0] == HISTORY:
        if len(runs) == 1 or not all(re.fullmatch(r"[0-9a-f]{7,40}", commit) for commit in runs[1:]):
            raise CompressError(f"<!-- figures: {' '.join(runs)} -->: must name commits after `history`, e.g. 6a61d06.")
        return
    unknown = [name for name in runs if name not in registry.runs]
    if unknown:
        known = ", ".join(registry.runs) or "none yet"
        raise CompressError(f"{', '.join(unknown)}: not recorded in {REGISTRY} (recorded: {known}). Use --record.")


# --- recording -----------------------------------------------------------------------------------------------------


def record_run(folder: Path, title: str, root: Path = ROOT) -> Published:
    """A finished run as it is published.

    Raises:
        CompressError: it was made by other code than this, by other settings, or the code is not committed.
    """
    report = artifacts.load(Report, folder / "report.json")
    recipe_file, changes = parse_command(report.command)
    recipe = load_recipe(root / recipe_file, changes, check_files=False)
    if report.settings != artifacts.fingerprint(recipe_settings(recipe)):
        raise CompressError(f"{folder}: made with other settings than {recipe_file} has now. Run it again.")
    for step in recipe.steps:
        check_stage(folder, STAGE_OF[step.name], recipe.task.kind)
    code = code_of(recipe)
    check_committed([recipe_file], code, root)
    return Published(
        title=title or recipe.name,
        command=report.command,
        recipes=(recipe_file,),
        changes=changes,
        commit=git(root, "rev-parse", "--short", "HEAD"),
        date=report.date,
        machine=tables.machine_line(report.machine),
        settings=named_settings(recipe, 1),
        code=code,
        tables=report_tables(report, title or recipe.name),
    )


def record_command(
    command: str, recipes: Sequence[str], title: str, date: str, at: str = "", root: Path = ROOT
) -> Published:
    """Figures that a command made of recipes, at this commit or an earlier one.

    Raises:
        CompressError: the code is not committed, or there is no such commit.
    """
    read = None if not at else commit_reader(at, root)
    code: dict[str, str] = {}
    settings: dict[str, str] = {}
    for name in recipes:
        recipe = load_recipe(root / name, check_files=False) if read is None else recipe_at(read, name, root)
        code |= code_of(recipe, None if read is None else functools.partial(module_source, read))
        settings |= named_settings(recipe, len(recipes))
    if not at:
        check_committed(recipes, code, root)
    commit = git(root, "rev-parse", "--short", at or "HEAD")
    machine = "" if at else tables.machine_line(machine_info())
    return Published(title, command, tuple(recipes), (), commit, date, machine, settings, dict(sorted(code.items())))


def check_stage(folder: Path, stage: str, kind: str) -> None:
    """Raise CompressError where a stage of a run was computed by other code than there is now."""
    found = _code_of_stage(folder, stage)
    now = stage_code(stage, (f"compress.tasks.{kind}",))
    if found != now:
        changed = differing(found, now) or tuple(sorted(found.keys() ^ now.keys()))
        raise CompressError(
            f"{folder}: {stage} was computed by other code than there is now ({', '.join(changed[:NAMED])}). "
            "Run the recipe again with another --out."
        )


def verify_run(run: Published, before: Path, after: Path, root: Path = ROOT) -> Published:
    """A published run whose figures stand, although code has changed: two short runs show that nothing they met did.

    Args:
        run: as it was recorded.
        before: a short run of its recipe, made by the code that made its figures.
        after: the same run made by the code as it is now.
        root: the repository.

    Raises:
        CompressError: the runs are of other code or of other recipes, or any file or score differs.
    """
    earlier, now = (artifacts.load(Report, folder / "report.json") for folder in (before, after))
    recipe_file, changes = parse_command(now.command)
    recipe = load_recipe(root / recipe_file, changes, check_files=False)
    if (recipe_file,) != run.recipes or not _same_run(earlier, now):
        raise CompressError(f"{before}, {after}: not the same run of {run.recipes[0]}. Use the same recipe and --set.")
    if any(change.startswith("recipe's") for change in changes_since(run, root)):
        raise CompressError(f"{run.recipes[0]}: its settings have changed since. Run it again.")
    for step in recipe.steps:
        stage = STAGE_OF[step.name]
        check_stage(after, stage, recipe.task.kind)
        _check_made_by(before, stage, run.code)
        if _made(before, stage) != _made(after, stage):
            raise CompressError(f"{stage}: {before} and {after} differ. The change moves figures: run it again.")
    if [one.stages for one in earlier.sets] != [one.stages for one in now.sets]:
        raise CompressError(f"{before} and {after} score differently. The change moves figures: run the recipe again.")
    code = code_of(recipe)
    check_committed([recipe_file], code, root)
    commit = git(root, "rev-parse", "--short", "HEAD")
    return dataclasses.replace(run, code=code, verified=commit, verified_by=now.command)


def _same_run(earlier: Report, now: Report) -> bool:
    """Whether two reports are of one recipe with the same settings. Between versions keys may have come, so that the
    settings as a whole differ: then the same command tells, and what the recipe holds is compared on its own."""
    if earlier.settings == now.settings:
        return True
    return parse_command(earlier.command) == parse_command(now.command)


def _check_made_by(folder: Path, stage: str, code: Mapping[str, str]) -> None:
    """Raise CompressError where a stage was computed by other code than this."""
    found = _code_of_stage(folder, stage)
    other = differing(found, code) if found else (stage,)
    if other:
        raise CompressError(f"{folder}: {stage} was not computed by the code that made the figures ({other[0]}).")


def _code_of_stage(folder: Path, stage: str) -> dict[str, str]:
    if stage == "sensitivity":
        return artifacts.load(Sensitivity, folder / "sensitivity.json").code
    return artifacts.load(Record, folder / f"{stage}.json").code


def _made(folder: Path, stage: str) -> object:
    """What a stage computed: every cell of a scan, or the content of a file."""
    if stage == "sensitivity":
        return artifacts.load(Sensitivity, folder / "sensitivity.json").curves
    return artifacts.load(Record, folder / f"{stage}.json").content


def check_committed(recipes: Sequence[str], code: Mapping[str, str], root: Path) -> None:
    """Raise CompressError where a file that figures depend on differs from the last commit."""
    files = [*recipes]
    for name in code:
        path = Path(*name.split("."))
        is_module = (root / path.with_suffix(".py")).is_file()
        files.append(str(path.with_suffix(".py") if is_module else path / "__init__.py"))
    dirty = git(root, "status", "--porcelain", "--", *files)
    if dirty:
        raise CompressError(f"not committed: {', '.join(dirty.split()[1::2])}. Commit first; figures name a commit.")


def report_tables(report: Report, title: str) -> dict[str, tuple[tuple[str, ...], ...]]:
    """The tables of a report that pages may show."""
    made = {
        "sets": tables.set_table(report),
        "stages": tables.stage_table(report),
        "details": tables.detail_table(report),
        "gates": tables.gate_table(report),
    }
    found = {name: (table.header, *table.rows) for name, table in made.items() if table.rows}
    return {**found, "summary": summary(report, title)}


def summary(report: Report, title: str) -> tuple[tuple[str, ...], ...]:
    """A run from the deployed file to the last: a row for each test set, the largest drop first, then validation."""
    by_name = {stage.stage: stage for stage in report.stages}
    first, last = report.stages[0], report.stages[-1]
    header = ("model", "images", "deployed -> int8, drop in points [95 %]", "KB", "MACs", "speed", "speed to ORT int8")
    figures = (
        f"{first.cost.size_bytes / 1000:.0f} -> {last.cost.size_bytes / 1000:.0f}",
        tables.ratio(last.cost.macs, first.cost.macs),
        _speed(first, last),
        _speed(by_name[PEER], last) if PEER in by_name else tables.NONE,
    )
    sets = (*tables.test_sets(report), *(one for one in report.sets if one.name == artifacts.VAL))
    if not sets:
        metric = f"{first.score.name} {first.score.metric:.4f} -> {last.score.metric:.4f}"
        return header, (title, artifacts.VAL, metric, *figures)
    rows = ((title, _kind_of(one), _figures_of(one, first.stage, last.stage), *figures) for one in sets)
    return header, *rows


def _kind_of(one: SetResult) -> str:
    kind = "validation" if one.name == artifacts.VAL else "test"
    return f"{one.images} {'' if one.name == artifacts.VAL else one.name}".strip() + f" ({kind})"


def _figures_of(one: SetResult, first: str, last: str) -> str:
    """Every figure of a set that has a drop with an interval, or its metric alone."""
    found = one.stages[last]
    names = [name for name, figure in found.items() if figure.drop_interval is not None or name == one.metric]
    before = one.stages[first]
    return "; ".join(
        f"{name} {before[name].value:.4f} -> {found[name].value:.4f}, {_points(found[name])}"
        for name in sorted(names, key=lambda name: name != one.metric)
    )


def _points(figure: Figure) -> str:
    """A drop in points with its interval; a gain is negative."""
    found = figure.drop_interval
    ends = "" if found is None else f" [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    return f"{100 * figure.drop:+.1f}{ends}"


def _speed(before: StageResult, after: StageResult) -> str:
    if before.latency is None or after.latency is None:
        return tables.NONE
    return f"{before.latency.median_ms / after.latency.median_ms:.1f}x"


def parse_command(command: str) -> tuple[str, tuple[str, ...]]:
    """The recipe's file and the changes of a `compress run`.

    >>> parse_command("compress run recipes/a.yaml --set threads=1 --out b")
    ('recipes/a.yaml', ('threads=1',))
    """
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--out")
    words = shlex.split(command)
    if words[1:2] != ["run"]:
        raise CompressError(f"{command}: not a `compress run`. Name a run's folder.")
    options, _ = parser.parse_known_args(words[2:])
    return options.recipe, tuple(options.set)


# --- git -----------------------------------------------------------------------------------------------------------


def git(root: Path, *words: str) -> str:
    """What git prints.

    Raises:
        CompressError: it fails; its own words say why.
    """
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
    if done.returncode:
        raise CompressError(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def commit_reader(commit: str, root: Path) -> Read:
    """The text of files as they were at a commit, by their path."""
    done = subprocess.run(
        ["git", "-C", str(root), "archive", commit, "compress", "recipes"], capture_output=True, check=False
    )
    if done.returncode:
        raise CompressError(f"git archive: {done.stderr.decode().strip()}")
    texts = {}
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive.getmembers():
            if member.isfile() and member.name.endswith((".py", ".yaml")):
                texts[member.name] = archive.extractfile(member).read().decode()  # type: ignore[union-attr]
    return texts.get


def module_source(read: Read, name: str) -> str | None:
    """A module's source at a commit."""
    path = name.replace(".", "/")
    return read(f"{path}.py") or read(f"{path}/__init__.py")


def recipe_at(read: Read, name: str, root: Path) -> Recipe:
    """A recipe as it was at a commit, read by today's rules."""
    text = read(name)
    if text is None:
        raise CompressError(f"{name}: not there at that commit.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
        return load_recipe(path, check_files=False)


# --- the command ---------------------------------------------------------------------------------------------------


def main(words: Sequence[str] | None = None, root: Path = ROOT) -> int:
    options = parse_arguments(words)
    file = root / REGISTRY
    registry = artifacts.load(Registry, file) if file.is_file() else Registry({})
    if options.record:
        known = registry.runs.get(options.record)
        title = options.title or (known.title if known else "")
        if options.run:
            made = record_run(options.run, title, root)
        else:
            made = record_command(options.command, options.recipe, title, options.date, options.at, root)
        registry = dataclasses.replace(registry, runs={**registry.runs, options.record: made})
        artifacts.save(registry, file)
        print(f"Recorded in {REGISTRY}: {options.record}, at commit {made.commit}")
    if options.verify:
        _check_known([options.verify], registry)
        made = verify_run(registry.runs[options.verify], options.before, options.after, root)
        registry = dataclasses.replace(registry, runs={**registry.runs, options.verify: made})
        artifacts.save(registry, file)
        print(f"Verified in {REGISTRY}: {options.verify}")
    changed = functools.cache(lambda name: changes_since(registry.runs[name], root))
    wrong = []
    for page in PAGES:
        path = root / page
        text = path.read_text(encoding="utf-8")
        try:
            now = marked(text, registry, changed)
        except CompressError as error:
            raise CompressError(f"{page}: {error}") from error
        if now != text:
            wrong.append(page)
            if not options.check:
                path.write_text(now, encoding="utf-8")
    stale = [name for name in registry.runs if changed(name)]
    if stale:
        print(f"Stale: {', '.join(stale)}. Run their recipes again, and record the runs.")
    if options.check and wrong:
        print(
            f"{', '.join(wrong)}: tables do not say what changed since they were measured, or are not as recorded. "
            "Run: python scripts/check_figures.py",
            file=sys.stderr,
        )
        return 1
    return 0


def parse_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--check", action="store_true", help="write nothing, exit with 1 where something would be written")
    add("--record", metavar="NAME", help="record a run under this name, then write the marks")
    add("--run", type=Path, metavar="FOLDER", help="the run's folder")
    add("--command", metavar="TEXT", help="instead of --run: the command that made the figures")
    add("--recipe", action="append", default=[], metavar="FILE", help="with --command: its recipes, relative to here")
    add("--at", default="", metavar="COMMIT", help="with --command: the commit that it ran at (default this one)")
    add("--date", default="", metavar="TEXT", help="with --command: when")
    add("--title", default="", metavar="TEXT", help="what tables call it (default as before, or the recipe's name)")
    add("--verify", metavar="NAME", help="compare two short runs of a recorded recipe, before and after a change")
    add("--before", type=Path, metavar="FOLDER", help="with --verify: the short run by the code that made the figures")
    add("--after", type=Path, metavar="FOLDER", help="with --verify: the same short run by the code as it is now")
    options = parser.parse_args(words)
    if options.verify and not (options.before and options.after):
        parser.error("--verify needs --before and --after.")
    if options.record and bool(options.run) == bool(options.command and options.recipe):
        parser.error("--record needs --run, or --command and --recipe.")
    if options.check and (options.record or options.verify):
        parser.error("--check writes nothing: leave out --record and --verify.")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CompressError as error:
        sys.exit(f"Error: {error}")
