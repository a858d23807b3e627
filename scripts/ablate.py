"""Run a recipe again and again, each time with one thing changed, and put the results in one table.

    python scripts/ablate.py recipes/ppocr_rec_en.yaml --out runs/ablation
    python scripts/ablate.py recipes/ppocr_rec_en.yaml --out runs/ablation --list
    python scripts/ablate.py recipes/ppocr_rec_en.yaml --out runs/ablation --rows uniform,plain-qat --base runs/rec

A row is the recipe with some keys changed, run in a folder of its own under --out. What it has in common with the
recipe itself (the row `base`) is computed once, in --out/base, and copied; `--base` takes it from a run that is there
already. Rows can be run in any order, one at a time, and by several processes at once; a killed one goes on where it
was. Each leaves --out/rows/NAME.json; ablation.json and ablation.md hold all that are there. A row whose training or
export fails says so in the table (exit code 1); delete its file in rows/ and its folder to try again.
"""

import argparse
import dataclasses
import datetime
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import onnx
import typer
from ablation_forms import run_form
from ablation_results import Result, Timing, commit, last_files, locked, merge, result_file, row_identity, summary
from ablation_rows import FORM, Row, all_rows, choose, shared_steps, uniform_share

from compress import artifacts
from compress.artifacts import PruningPlan, StageResult
from compress.cli.progress import progress
from compress.errors import CompressError, ParityError, TrainingError, UnsupportedOpError
from compress.graph import deployed_bytes
from compress.measure.cost import model_cost
from compress.measure.latency import measure_latency
from compress.measure.machine import machine_info
from compress.pipeline import open_any, run_recipe, score_model
from compress.pipeline.stages.prune import timed_kernels
from compress.pipeline.tasks import recipe_task
from compress.progress import Progress
from compress.recipe import CompareSettings, GateSettings, PruneStep, Recipe, Step, load_recipe
from compress.tasks.base import Task

FILES = {
    "teacher": ("teacher.onnx", "teacher.json"),
    "sensitivity": ("sensitivity.json",),
    "replace": ("activations.json", "replaced.onnx", "replaced.json"),
    "prune": ("plan.json", "pruned.onnx", "pruned.json"),
    "reconstruct": ("reconstructed.onnx", "reconstructed.json"),
    "finetune": ("finetuned.onnx", "finetuned.json"),
    "quantize": ("int8.onnx", "int8.json"),
}
"""What each step of a run leaves. Where the last file is, the step is finished, but for the scan: it grows."""
PLAIN = ("gates={}", "compare.onnxruntime=false")
"""Gates and onnxruntime's own int8 are the business of the recipe as it is."""


@dataclass(frozen=True)
class Ablation:
    """What stays the same from row to row."""

    path: Path
    changes: tuple[str, ...]
    out: Path
    base: Recipe
    on_progress: Progress

    def recipe(self, row: Row) -> Recipe:
        """The row's recipe, which works in the row's folder."""
        if row.name == "base":
            return self.base
        recipe = load_recipe(self.path, [*self.changes, *row.settings, *PLAIN, f"out={self.out / row.name}"])
        steps = tuple(step for step in recipe.steps if step.name not in row.without)
        return recipe.model_copy(update={"steps": steps})

    def named(self, name: str) -> "Ablation":
        """The same, with a name before every line of progress."""
        show = self.on_progress
        return dataclasses.replace(self, on_progress=lambda done, of, message: show(done, of, f"{name}: {message}"))


def main() -> int:
    options = parse_arguments()
    base = load_recipe(options.recipe, [*options.set, f"out={options.out / 'base'}"])
    rows = choose(all_rows(base), options.rows)
    if options.list:
        show_rows(rows, options.out)
        return 0
    if options.base:
        copy_stages(options.base, base.out, list(FILES))
    failed = 0
    names, command = [row.name for row in all_rows(base)], shlex.join(["python", *sys.argv])
    with progress(f"{options.out} holds what is done; the same command goes on from there.") as on_progress:
        ablation = Ablation(options.recipe, tuple(options.set), options.out, base, on_progress)
        for row in rows:
            with locked(options.out / "rows" / f".{row.name}.lock"):
                result = run_row(ablation.named(row.name), row)
            merge(options.out, names, command)
            failed += bool(result.failed)
            print(f"{row.name}: {summary(result)}", flush=True)
        time_rows(ablation, names)
    merge(options.out, names, command)
    print(f"Table: {options.out / 'ablation.md'}")
    return 1 if failed else 0


def time_rows(ablation: Ablation, names: list[str]) -> None:
    """Time the files of all rows that are there against each other, and store that in place of earlier figures."""
    base = ablation.base
    deployed = Path(base.model) if Path(base.model).is_file() else base.out / "canonical.onnx"
    if not deployed.is_file():  # a PyTorch model whose recipe has not been run
        return
    channels, height, width = base.task.input_shape
    rows = measure_latency(
        last_files(ablation.out, names, deployed),
        (channels, height, width),
        threads=base.compare.threads,
        rounds=base.compare.rounds,
        on_progress=ablation.on_progress,
    )
    artifacts.save(Timing(now(), rows), ablation.out / "latency.json")


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def show_rows(rows: tuple[Row, ...], out: Path) -> None:
    for row in rows:
        done = "done" if result_file(out, row.name).exists() else "-"
        changes = [*row.settings, *(f"no {step}" for step in row.without)]
        print(f"{row.name:14} {done:5} {row.title}: {', '.join(changes) or '-'}")


def run_row(ablation: Ablation, row: Row) -> Result:
    """The row's result: read back if it is there, else computed and stored.

    Raises:
        ArtifactError: the stored result is of another recipe or model.
    """
    file = result_file(ablation.out, row.name)
    stored = artifacts.load(Result, file) if file.exists() else None
    if row.name == "uniform":
        row = dataclasses.replace(row, settings=stored.settings) if stored else uniform_row(ablation, row)
    recipe = ablation.recipe(row)
    identity = row_identity(recipe)
    if row.settings and recipe.steps == ablation.base.steps:
        row = dataclasses.replace(row, title=f"{row.title}: as in the recipe")
    if stored:
        artifacts.check_fresh(file, stored.fingerprint, identity)
        return stored
    result = compute(ablation, row, recipe, identity)
    artifacts.save(result, file)
    return result


def compute(ablation: Ablation, row: Row, recipe: Recipe, identity: str) -> Result:
    """Run the row; a failure of training or export is its result."""
    task = recipe_task(recipe)
    result = Result(
        row.name, row.title, row.settings, row.without, identity, commit(), now(), machine_info(), task.metric_name
    )
    if row.name == "fp32":
        deployed = score_deployed(recipe, task)
        return dataclasses.replace(result, fp32=deployed, count=deployed.score.count)
    try:
        stages, notes = run_stages(ablation, row, recipe, task)
    except (TrainingError, ParityError, UnsupportedOpError) as error:
        return dataclasses.replace(result, failed=str(error))
    return dataclasses.replace(
        result,
        fp32=stages.get("finetuned") or stages.get("teacher"),
        int8=stages.get("int8"),
        count=stages["baseline"].score.count,
        notes=notes,
    )


def run_stages(
    ablation: Ablation, row: Row, recipe: Recipe, task: Task
) -> tuple[dict[str, StageResult], tuple[str, ...]]:
    """What a run of the row's recipe reports of each stage, and its notes."""
    if row.name.startswith(FORM):
        finish_base(ablation, "finetune")
        with locked(ablation.out / ".forms.lock"):  # one network, trained by whichever row comes first
            return run_form(ablation.base, recipe, task, ablation.out / "forms.checkpoint", ablation.on_progress), ()
    if row.name != "base":
        share_stages(ablation, recipe)
    with locked(recipe.out.with_name(f".{recipe.out.name}.lock")):
        report = run_recipe(recipe, shlex.join(["python", *sys.argv]), ablation.on_progress)
    return {stage.stage: stage for stage in report.stages}, report.notes


def score_deployed(recipe: Recipe, task: Task) -> StageResult:
    """The recipe's model as it is."""
    content = open_any(recipe.model, recipe.weights, task.input_shape)
    file = Path(recipe.model)
    size_bytes = deployed_bytes(file) if file.is_file() else len(content)
    cost = model_cost(onnx.load_model_from_string(content), task.input_shape, size_bytes)
    return StageResult("baseline", file.name, cost, score_model(content, task, recipe.threads))


def share_stages(ablation: Ablation, recipe: Recipe) -> None:
    """Copy the files of the steps that a recipe has in common with the base; what is not there yet is made there."""
    shared = shared_steps(ablation.base, recipe)
    if shared:
        finish_base(ablation, shared[-1])
        copy_stages(ablation.base.out, recipe.out, shared)


def finish_base(ablation: Ablation, step: str) -> None:
    """Run the base's steps up to this one unless they are done; if another process is at it, wait for that."""
    base = ablation.base
    names = [each.name for each in base.steps]
    count = names.index(step) + 1 + (step == "sensitivity")  # a scan's file is there from its first cell on
    finished = (base.out / FILES[names[count - 1]][-1]).exists
    with locked(ablation.out / ".base.lock", unless=finished) as free:
        if free:
            plain = {"gates": GateSettings(), "compare": CompareSettings(rounds=3)}  # measured when the row `base` is
            short = base.model_copy(update={"steps": _as_in(base, count), **plain})
            run_recipe(short, shlex.join(["python", *sys.argv]), ablation.on_progress)


def _as_in(base: Recipe, count: int) -> tuple[Step, ...]:
    """The first steps of a recipe; how time is predicted would follow from those that are left out, so it is named."""
    kernels = {"precision": timed_kernels(base)}
    return tuple(
        step.model_copy(update=kernels) if isinstance(step, PruneStep) else step for step in base.steps[:count]
    )


def copy_stages(source: Path, target: Path, steps: list[str]) -> None:
    """Copy what is there of these steps' files, as far as the target lacks them."""
    for name in (name for step in steps for name in FILES[step]):
        if (source / name).exists() and not (target / name).exists():
            artifacts.write_atomic(target / name, (source / name).read_bytes())


def uniform_row(ablation: Ablation, row: Row) -> Row:
    """The row `uniform` with the multiply-adds of the base's plan to keep, which without a scan is one ratio."""
    finish_base(ablation, "prune")
    plan = artifacts.load(PruningPlan, ablation.base.out / "plan.json")
    share, macs = uniform_share(ablation.base, plan)
    title = f"{row.title} ({macs / plan.macs_after - 1:+.1%})"
    return dataclasses.replace(row, title=title, settings=(f"prune.target={{macs: {share}}}",))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="a recipe that prunes, fine-tunes and quantises")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key in every row")
    parser.add_argument("--rows", metavar="NAME,NAME", help="only these rows (default all; --list shows them)")
    parser.add_argument("--base", type=Path, metavar="FOLDER", help="take finished stages from this run of the recipe")
    parser.add_argument("--list", action="store_true", help="show the rows and which are done, and run nothing")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CompressError as error:
        sys.exit(f"Error: {error}")
    except typer.Exit as stop:  # interrupted; what is kept was said
        sys.exit(stop.exit_code)
