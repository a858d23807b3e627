"""Time and score models as deployed, in canonical form, and as int8 by this project and by others: one run, one table.

    python -m benchmarks.bench_models --docs docs/benchmarks.md
    python -m benchmarks.bench_models --model det=recipes/ppocr_det.yaml:runs/ppocr_det --images det=10
    python -m benchmarks.bench_models --model cls=recipes/demo_cls.yaml,int8=runs/cls_int8 --threads 1 --out runs/quick

A model is NAME=RECIPE[:RUN][,int8=FILE]: RUN is the folder of a finished `compress run` of the recipe, whose int8.onnx
is the pruned row (without it the recipe is run, as far as it is not done); `int8=` an int8 file of the
unpruned model, or a run's folder (without it the recipe's `quantize` step calibrates one, and trains nothing). Without
--model: the three models that ship, by the demo recipes. --set changes a recipe's keys: KEY=VALUE in all of them,
NAME.KEY=VALUE in one.

Every row is a file: deployed fp32, canonical fp32, onnxruntime's quantizer, NNCF, ours int8, ours pruned and int8; with
--openvino, NNCF's file and ours once more in that runtime, which is NNCF's own. NNCF is installed once, into an
environment of its own, --out/../peers_venv; where that cannot be done its rows say so. Finished files and scores are
kept in --out, and taken again while nothing they depend on has changed; everything is timed anew, all files of a model
in turn. Writes --out/bench.json, bench.md and bench.svg; with --docs the table goes between that file's marks, and the
plot beside it.
"""

import argparse
import datetime
import functools
import os
import re
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from benchmarks.bench_results import Bench, Entry
from benchmarks.bench_rows import make_files, model_bench, score_files, time_rows
from benchmarks.bench_table import plot_svg, render, rewrite_marked, summary
from benchmarks.checkout import commit
from benchmarks.peers import peers_python
from compress import artifacts
from compress.cli.progress import progress
from compress.errors import CompressError
from compress.measure.machine import machine_info
from compress.measure.openvino import load_openvino
from compress.progress import Progress
from compress.recipe import Recipe, load_recipe

SHIPPED = ("det=recipes/demo_det.yaml", "rec=recipes/demo_rec.yaml", "cls=recipes/demo_cls.yaml")
"""What is measured where nothing is named."""
MODEL = re.compile(r"(?P<name>[A-Za-z0-9_-]+)=(?P<recipe>[^:,]+)(:(?P<run>[^,]+))?(,int8=(?P<int8>.+))?")


def main() -> int:
    options = parse_arguments()
    artifacts.check_writable(options.out)
    for page in filter(None, (options.docs, options.readme)):
        rewrite_marked(page, "")  # before hours of work, not after
    if options.openvino:
        load_openvino()
    entries = parse_entries(options.model or SHIPPED, options.set, options.images)
    with progress(f"{options.out} holds what is done; the same command goes on from there.") as on_progress:
        bench = run(entries, options, on_progress)
    write(bench, options.out, options.docs)
    if options.readme:
        artifacts.write_atomic(options.readme, rewrite_marked(options.readme, summary(bench)).encode())
        print(f"Written: {options.readme}")
    return 0


def run(entries: Sequence[Entry], options: argparse.Namespace, on_progress: Progress) -> Bench:
    """Make every file, score every file, and then, in one go, time them."""
    peers = options.peers_python
    python = functools.cache(lambda: peers or peers_python(options.out.parent / "peers_venv"))
    folders = {entry.name: options.out / entry.name for entry in entries}
    models = [make_files(entry, folders[entry.name], python, on_progress) for entry in entries]
    openvino = options.openvino
    scores = [score_files(model, folders[model.entry.name], openvino, on_progress) for model in models]
    start = Ticks.now()
    times = [
        time_rows(model, list(scored.scores), options.threads, options.rounds, on_progress)
        for model, scored in zip(models, scores, strict=True)
    ]
    busy = busy_cores(start, Ticks.now())
    found = [
        model_bench(model, scored, timed, openvino) for model, scored, timed in zip(models, scores, times, strict=True)
    ]
    return Bench(
        command=shlex.join(["python", "-m", "benchmarks.bench_models", *sys.argv[1:]]),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=commit(),
        machine=machine_info(),
        busy_cores=busy,
        nncf=next((model.nncf for model in models if model.nncf), ""),
        threads=options.threads,
        rounds=options.rounds,
        models=tuple(found),
    )


@dataclass(frozen=True)
class Ticks:
    """Seconds of CPU time: of all cores while they worked, of this process, and of the clock."""

    worked: float
    own: float
    clock: float

    @staticmethod
    def now(stat: Path = Path("/proc/stat")) -> "Ticks | None":
        """Read them; None where the system does not tell."""
        if not stat.is_file():
            return None
        values = [int(word) for word in stat.read_text().splitlines()[0].split()[1:9]]
        idle = values[3] + values[4]  # waiting for disks is idle, too
        return Ticks((sum(values) - idle) / os.sysconf("SC_CLK_TCK"), time.process_time(), time.monotonic())


def busy_cores(start: Ticks | None, end: Ticks | None) -> float | None:
    """How many cores other processes kept busy between two moments.

    >>> busy_cores(Ticks(100.0, 10.0, 0.0), Ticks(125.0, 20.0, 10.0))
    1.5
    """
    if start is None or end is None:
        return None
    others = (end.worked - start.worked) - (end.own - start.own)
    return round(max(0.0, others / max(1e-9, end.clock - start.clock)), 2)


def write(bench: Bench, out: Path, docs: Path | None) -> None:
    """Write the results, and show where they are."""
    artifacts.save(bench, out / "bench.json")
    artifacts.write_atomic(out / "bench.md", render(bench, "bench.svg").encode())
    artifacts.write_atomic(out / "bench.svg", plot_svg(bench).encode())
    print(render(bench))
    if docs:
        artifacts.write_atomic(docs, rewrite_marked(docs, render(bench, "bench.svg")).encode())
        artifacts.write_atomic(docs.with_name("bench.svg"), plot_svg(bench).encode())
        print(f"Written: {docs}, {docs.with_name('bench.svg')}")


# --- arguments ---------------------------------------------------------------------------------------------------


def parse_entries(models: Sequence[str], changes: Sequence[str], images: Sequence[str]) -> list[Entry]:
    """The models that are requested.

    Raises:
        CompressError: one is not understood, is named twice, or an option names none of them.
    """
    matches = [_match(text) for text in models]
    names = [match["name"] for match in matches]
    if len(set(names)) < len(names):
        raise CompressError(f"--model: {', '.join(names)}: each name must be given once.")
    foreign = [name for name in names if name in Recipe.model_fields]
    if foreign:
        raise CompressError(f"--model: {foreign[0]!r} is a key of recipes. Use another name, as det, rec or cls.")
    limits = parse_images(images, names)
    return [_entry(match, _changes_of(match["name"], names, changes), limits.get(match["name"])) for match in matches]


def _match(text: str) -> dict[str, str]:
    """The parts of a model's text; those that are not there are empty."""
    match = MODEL.fullmatch(text)
    if match is None:
        raise CompressError(
            f"--model: got {text!r}. Must be NAME=RECIPE[:RUN][,int8=FILE]. "
            "Use e.g. det=recipes/ppocr_det.yaml:runs/ppocr_det."
        )
    return match.groupdict(default="")


def _entry(match: dict[str, str], changes: list[str], images: int | None) -> Entry:
    int8 = Path(match["int8"]) if match["int8"] else None
    if int8 and int8.is_dir():
        int8 = int8 / "int8.onnx"
    if int8 and not int8.is_file():
        raise CompressError(f"--model {match['name']}: int8={int8}: no such file. Give an int8 file or a run's folder.")
    recipe = load_recipe(Path(match["recipe"]), changes)
    return Entry(match["name"], recipe, Path(match["run"]) if match["run"] else None, int8, images)


def _changes_of(name: str, names: Sequence[str], changes: Sequence[str]) -> list[str]:
    """The changes of one model's recipe: those of all models, and its own.

    >>> _changes_of("det", ["det", "rec"], ["threads=1", "det.task.side=640", "rec.model=a.onnx"])
    ['threads=1', 'task.side=640']
    """
    kept = []
    for change in changes:
        first, _, rest = change.partition(".")
        if first == name:
            kept.append(rest)
        elif first not in names:
            kept.append(change)
    return kept


def parse_images(texts: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Read `100`, for every model, and `det=10`, for one.

    Raises:
        CompressError: it is no number above 0, or names no model.

    >>> parse_images(["100", "det=10"], ["det", "rec"])
    {'det': 10, 'rec': 100}
    """
    limits: dict[str, int] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if not number.isdecimal() or int(number) < 1 or (name and name not in names):
            raise CompressError(f"--images: got {text!r}. Must be a number, or NAME=NUMBER of {', '.join(names)}.")
        limits.update(dict.fromkeys([name] if name else names, int(number)))
    return limits


def parse_threads(text: str) -> tuple[int, ...]:
    """Read `1,2`."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"got {text!r}. Must be numbers above 0 with commas, e.g. 1,2.")
    return tuple(dict.fromkeys(int(part) for part in parts))


def parse_rounds(text: str) -> int:
    """Read a number of at least 3."""
    if not text.isdecimal() or int(text) < 3:
        raise argparse.ArgumentTypeError(f"got {text!r}. Must be a number of at least 3, e.g. 50.")
    return int(text)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", action="append", default=[], metavar="NAME=RECIPE[:RUN][,int8=FILE]", help="may be repeated")
    add("--set", action="append", default=[], metavar="[NAME.]KEY=VALUE", help="change a key of the recipes")
    add("--images", action="append", default=[], metavar="[NAME=]N", help="score on the first N validation images only")
    add("--threads", type=parse_threads, default=(1, 2), metavar="LIST", help="numbers of threads to time with; 1,2")
    add("--rounds", type=parse_rounds, default=50, metavar="N", help="timed rounds; each times every file once; 50")
    add("--out", type=Path, default=Path("runs/bench"), metavar="FOLDER", help="folder for everything; runs/bench")
    add("--docs", type=Path, metavar="FILE", help="Markdown file whose marked part is rewritten")
    add("--readme", type=Path, metavar="FILE", help="Markdown file whose marked part becomes one small table")
    add("--openvino", action="store_true", help="int8 files in OpenVINO, too (pip install 'compress[openvino]')")
    add("--peers-python", type=Path, metavar="PATH", help="a Python that has nncf, instead of installing it")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CompressError as error:
        sys.exit(f"Error: {error}")
    except typer.Exit as stop:  # interrupted
        sys.exit(stop.exit_code)
