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
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figures.pages import PAGES, check_known, marked
from figures.published import REGISTRY, ROOT, Registry, changes_since
from figures.recording import record_command, record_run, verify_run

from compress import artifacts
from compress.errors import CompressError


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
        check_known([options.verify], registry)
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
    add("--verify", metavar="NAME", help="compare short runs of the recorded recipes, before and after a change")
    folders: dict[str, Any] = {"type": Path, "metavar": "FOLDER", "nargs": "+", "default": []}
    add("--before", **folders, help="with --verify: a short run of each recipe by the code that made the figures")
    add("--after", **folders, help="with --verify: the same short runs, in this order, by the code as it is now")
    options = parser.parse_args(words)
    if options.verify and not len(options.before) == len(options.after) > 0:
        parser.error("--verify needs --before and --after, as many folders each.")
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
