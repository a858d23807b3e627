"""The published hard case: a ResNet18-CRNN without 90 % of its multiply-adds, pruned by several rules in one protocol.

    python -m benchmarks.studies.hard_case --out runs/hard_case
    python -m benchmarks.studies.hard_case --out runs/quick --crops 64 32 32 --epochs 1 1 1 --set teacher.epochs=1 \
        --set finetune.epochs=1 --set sensitivity.images=8 --rows uniform price

Renders short words of letters and digits, trains the network on them (--scale and --units: 1 and 64 are the published
width), and runs hard_case.yaml, which lies beside this file, once for each row. The control is the recipe's `teacher`:
the unpruned network, trained on as long and in the same way as the pruned ones, which learn from it. Validation words
choose ratios, plans and epochs; the test words, of another seed, judge. Killed and started again with the same options
it goes on where it was. Writes --out/table.md; results, machine and times: docs/sensitivity.md.
"""

import argparse
import copy
import dataclasses
import shlex
import string
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import torch
import typer

from benchmarks.checkout import commit
from benchmarks.studies.resnet_crnn import ResNetCrnn
from compress import artifacts
from compress.artifacts import Report, Scored
from compress.cli.progress import progress
from compress.data.rendered import write_rendered
from compress.data.synthetic import render_crop
from compress.data.texts import random_text
from compress.data.transforms import PPOCR
from compress.errors import CompressError
from compress.graph import from_torch, save_model
from compress.measure.machine import machine_info
from compress.pipeline import run_recipe
from compress.pipeline.stages.scores import FOLDER, compare_files
from compress.progress import Progress
from compress.recipe import Recipe, load_recipe
from compress.tasks.base import Examination
from compress.tasks.recognition import RecognitionTask
from scripts.from_scratch import ALONE, BackboneReader, Stage, run_stage

ROWS = {
    "price": (),
    "uniform": (),
    "threshold": ("prune.allocation=threshold",),
    "product": ("prune.allocation=product",),
    "search": ("prune.search={candidates: 13, recover: reconstruct}",),
    "recovered": ("sensitivity.recover=reconstruct", "prune.allocation=threshold"),
}
"""Row -> keys of the recipe that it changes; `uniform` does without the scan."""
SHARED = {"teacher": ("teacher.onnx", "teacher.json"), "sensitivity": ("sensitivity.json",)}
"""Files of the steps that build on no other: rows with the same step may share them."""
SETS = ("train", "val", "test")
SHAPE = (3, 32, 320)
LONGEST = 5
"""Characters of a word; longer texts are cut, which halves the time of a step."""


def main() -> None:
    options = parse_arguments()
    with progress(f"{options.work} holds what is done; the same command goes on from there.") as on_progress:
        render(options, on_progress)
        train(options, on_progress)
        for row in options.rows:
            recipe = take_shared(row_recipe(row, options), options)
            run_recipe(recipe, shlex.join(["python", "-m", "benchmarks.studies.hard_case", *sys.argv[1:]]), on_progress)
            print(write_table(options), flush=True)


def render(options: argparse.Namespace, on_progress: Progress) -> None:
    """The charset and the three sets of words, where they are not whole yet."""
    characters = string.digits + string.ascii_lowercase
    artifacts.write_atomic(options.work / "charset.txt", "\n".join(characters).encode())
    for number, (name, count) in enumerate(zip(SETS, options.crops, strict=True)):
        folder, seed = options.work / name, options.seed + number
        labels = folder / "labels.txt"
        if not labels.exists() or len(labels.read_text().splitlines()) != count:
            write_rendered(folder, count, seed, render=word, suffix=".png", on_progress=on_progress)


def word(rng: np.random.Generator) -> tuple[bytes, str]:
    """A plain crop as PNG, and its letters and digits in lower case, whatever the case that is drawn."""
    text = ""
    while not text:
        text = "".join(filter(str.isalnum, random_text(rng, directed=False)))[:LONGEST]
    return cv2.imencode(".png", render_crop(text, rng, plain=True))[1].tobytes(), text.lower()


def train(options: argparse.Namespace, on_progress: Progress) -> None:
    """Backbone alone, then the whole network taught by it, then the whole network by itself on augmented crops.

    Stages that are finished are read back; checkpoints of other options are refused.
    """
    started = time.monotonic()
    torch.manual_seed(options.seed)
    module = ResNetCrnn(classes=37, scale=options.scale, units=options.units, se=options.se)
    identity, teacher = "", None
    for name, epochs in zip((ALONE, "2-taught", "3-whole"), options.epochs, strict=True):
        stage = Stage(name, "train", SHAPE, epochs, options.lr, augment=name == "3-whole")
        network = BackboneReader(module) if name == ALONE else module
        task = make_task(options.work, stage)
        identity = run_stage(network, stage, task, options, identity, on_progress, teacher)
        teacher = copy.deepcopy(network).eval() if name == ALONE else None
    save_model(from_torch(module.eval(), torch.zeros(1, *SHAPE)), options.work / "network.onnx")
    print(f"network.onnx: {time.monotonic() - started:.0f} s, from the last start on")


def make_task(out: Path, stage: Stage) -> RecognitionTask:
    """The stage's crops, fed and scored as the recipe does."""
    recipe = load_recipe(recipe_file(), check_files=False)
    return RecognitionTask(
        [out / stage.crops / "labels.txt"],
        [out / "val" / "labels.txt"],
        charset=out / "charset.txt",
        use_space=False,
        input_shape=SHAPE,
        widths=recipe.task.widths,
        augment=stage.augment,
        processing=dataclasses.replace(PPOCR, lowercase=True),
    )


def row_recipe(row: str, options: argparse.Namespace) -> Recipe:
    """The recipe of a row, in a folder of its own."""
    out = options.work
    paths = [f"data.{name}={out / name / 'labels.txt'}" for name in SETS]
    paths += [f"model={out / 'network.onnx'}", f"task.charset={out / 'charset.txt'}", f"out={out / row}"]
    recipe = load_recipe(recipe_file(), [*paths, *options.set, *ROWS[row]])
    steps = tuple(step for step in recipe.steps if row != "uniform" or step.name != "sensitivity")
    return recipe.model_copy(update={"steps": steps})


def take_shared(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    """The same recipe, its folder with the teacher and the scan that a finished row has made in the same way."""
    for row in ROWS:
        if (options.work / row / "report.json").exists():
            other = row_recipe(row, options)
            for step in (step for step in recipe.steps if step in other.steps):
                copy_missing(other.out, recipe.out, SHARED.get(step.name, ()))
    return recipe


def copy_missing(source: Path, target: Path, names: Iterable[str]) -> None:
    """Copy what is there of these files, as far as the target lacks them."""
    for name in names:
        if (source / name).exists() and not (target / name).exists():
            artifacts.write_atomic(target / name, (source / name).read_bytes())


def recipe_file() -> Path:
    return Path(__file__).with_suffix(".yaml")


def write_table(options: argparse.Namespace) -> str:
    """Every finished row beside the control, with its drop from it on the test words; written and returned."""
    lines = [
        "| row | MACs | params | pruned: val, test | fine-tuned: val, test | drop from the control, points | s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in ROWS:
        folder = options.work / row
        if (folder / "report.json").exists():
            report = artifacts.load(Report, folder / "report.json")
            if len(lines) == 2:
                lines += [table_line("unpruned", report, folder, "baseline", "baseline")]
                lines += [table_line("control", report, folder, "baseline", "teacher")]
            lines += [table_line(row, report, folder, "pruned", "finetuned")]
    caption = f"commit {commit()}, {time.strftime('%Y-%m-%d')}, {machine_info().cpu}, one thread"
    table = "\n".join([*lines, "", caption, ""])
    artifacts.write_atomic(options.work / "table.md", table.encode())
    return table


def table_line(name: str, report: Report, folder: Path, before: str, after: str) -> str:
    """A row: two stages of its run, and what the second loses against the control on the same words, in points."""
    stages = {stage.stage: stage for stage in report.stages}
    figures = []
    for stage in (before, after):
        figures.append(", ".join(f"{scored(folder, words, stage).score.metric:.4f}" for words in ("val", "test")))
    pair = {"control": scored(folder, "test", "teacher"), name: scored(folder, "test", after)}
    lost = compare_files("test", "", pair).stages[name]["exact"]
    low, high = (lost.drop_interval.low, lost.drop_interval.high) if lost.drop_interval else (0.0, 0.0)
    drop = "-" if after == "teacher" else f"{100 * lost.drop:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    cost, whole = stages[after].cost, stages["baseline"].cost
    macs = f"{cost.macs / 1e6:.1f} M ({cost.macs / whole.macs:.3f}x)"
    return f"| {name} | {macs} | {cost.params} | {figures[0]} | {figures[1]} | {drop} | {stages[after].seconds:.0f} |"


def scored(folder: Path, words: str, stage: str) -> Examination:
    """What a run keeps of a stage's score on one of its sets."""
    kept = artifacts.load(Scored, folder / FOLDER / f"{words}.{stage}.json")
    return Examination(kept.score, (), {figure: np.array(rows) for figure, rows in kept.tallies.items()})


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    usual = Path("runs/hard_case")
    add("--out", dest="work", type=Path, default=usual, metavar="FOLDER", help="for everything (default %(default)s)")
    add(
        "--rows",
        nargs="+",
        choices=ROWS,
        default=tuple(ROWS),
        metavar="ROW",
        help=f"of {', '.join(ROWS)} (default all)",
    )
    add("--crops", type=int, nargs=3, default=(12000, 1000, 2000), metavar="N", help="training, validation, test words")
    add("--epochs", type=int, nargs=3, default=(1, 1, 2), metavar="N", help="of each stage (default 1 1 2)")
    add("--scale", type=float, default=0.25, help="width of the backbone (default %(default)s)")
    add("--units", type=int, default=32, help="of the GRU, per direction (default %(default)s)")
    add("--se", action="store_true", help="squeeze-and-excite in every block")
    add("--lr", type=float, default=2e-3, help="peak learning rate (default %(default)s)")
    add("--batch-size", type=int, default=16, help="(default %(default)s)")
    add("--seed", type=int, default=700, help="of crops, weights and order (default %(default)s)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe in every row")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except CompressError as error:
        sys.exit(f"Error: {error}")
    except typer.Exit as stop:  # interrupted; what is kept was said
        sys.exit(stop.exit_code)
