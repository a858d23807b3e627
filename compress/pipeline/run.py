"""A whole recipe, as one story: (teach ->) scan (-> replace) -> plan -> prune (-> reconstruct) -> fine-tune -> quantise
-> report.

Every stage leaves its file and a record of what it was computed from in the output folder, so a run that was stopped
anywhere, even killed, goes on where it was, and ends with the same files as a run in one go.
"""

from pathlib import Path

import onnx

from compress import artifacts
from compress.artifacts import PruningPlan, Quantized, Replaced, Report, Sensitivity
from compress.graph import save_model
from compress.measure.latency_table import LatencyTable
from compress.measure.network_operators import Kernels
from compress.pipeline import stages, training
from compress.pipeline.diagnosis import check_processing
from compress.pipeline.inputs import default_threads, open_model, recipe_task
from compress.pipeline.labelling import label_unlabelled, with_labels
from compress.pipeline.reconstructing import Reconstructed, reconstruct_identity, run_reconstruct
from compress.pipeline.replacing import replace_identity, run_replace
from compress.pipeline.results import make_report, measure_files
from compress.pipeline.scan_cost import Note
from compress.pipeline.scoring import check_test_sets
from compress.pipeline.searching import CANDIDATES_FILE, Search, check_search
from compress.pipeline.stages import Progress
from compress.pipeline.state import CHECKPOINT, Run
from compress.recipe import (
    FinetuneStep,
    PruneStep,
    QuantizeStep,
    Recipe,
    ReconstructStep,
    ReplaceStep,
    SensitivityStep,
    TeacherStep,
)
from compress.report import write_report
from compress.tasks.base import Task


def run_recipe(
    recipe: Recipe, command: str, on_progress: Progress | None = None, on_note: Note | None = None
) -> Report:
    """Do what the recipe says and report it; see the module's text for resuming.

    `on_progress` is called as (done, in all, message); `on_note` is told what is to be known on the way.

    Raises:
        CompressError: anything a user can mend; what was finished before stays.
    """
    artifacts.check_writable(recipe.out)
    with artifacts.lock(recipe.out):
        return _run_steps(recipe, command, on_progress, on_note)


def _run_steps(recipe: Recipe, command: str, on_progress: Progress | None, on_note: Note | None) -> Report:
    given = recipe
    notes: tuple[str, ...] = ()
    if recipe.data.images:
        labelled = with_labels(recipe, on_progress)
        recipe, notes = labelled.recipe, labelled.warnings
    task = recipe_task(recipe)
    check_test_sets(recipe, task)
    original = open_model(recipe.model, recipe.weights, task.input_shape)
    training.note_outputs(original, on_note)
    if (asked := recipe.find_step(PruneStep)) is not None and asked.search is not None:
        check_search(original, asked.search)
    threads = recipe.threads or default_threads()
    check_processing(original, task, on_note, threads=threads)
    taught = label_unlabelled(task, original, threads=threads, on_progress=on_progress)
    run = Run(recipe, taught, original, original, threads, on_progress, on_note, given=given, notes=notes)
    files = {"baseline": _baseline_file(run)}
    model = original
    if (lesson := recipe.find_step(TeacherStep)) is not None:
        run.teacher = _finetune(run, "teacher", original, lesson.as_finetune())
        files["teacher"] = recipe.out / "teacher.onnx"
    scan = _scan(run, task)
    if (replace := recipe.find_step(ReplaceStep)) is not None:
        model = _replace(run, task, model, replace)
        files["replaced"] = recipe.out / "replaced.onnx"
    plan: PruningPlan | None = None
    if (prune := recipe.find_step(PruneStep)) is not None:
        whole, model = model, _prune(run, task, model, prune, scan)
        plan = artifacts.load(PruningPlan, recipe.out / stages.PLAN_FILE)
        files["pruned"] = recipe.out / "pruned.onnx"
        if (solve := recipe.find_step(ReconstructStep)) is not None:
            model = _reconstruct(run, whole, model, plan, solve)
            files["reconstructed"] = recipe.out / "reconstructed.onnx"
    if (finetune := recipe.find_step(FinetuneStep)) is not None:
        model = _finetune(run, "finetuned", model, finetune, plan)
        files["finetuned"] = recipe.out / "finetuned.onnx"
    if (quantize := recipe.find_step(QuantizeStep)) is not None:
        _quantize(run, model, quantize)
        files["int8"] = recipe.out / "int8.onnx"
    measured = measure_files(run, files)
    report = make_report(run, command, measured, plan, scan)
    write_report(report, recipe.out, scan)
    return report


def _scan(run: Run, task: Task) -> Sensitivity | None:
    """The scan of this task as it was before images were labelled for training, which no score depends on."""
    step = run.recipe.find_step(SensitivityStep)
    if step is None:
        return None
    prune = run.recipe.find_step(PruneStep)
    return stages.run_sensitivity(
        run.original,
        task,
        run.recipe.out,
        criterion=step.criterion,
        ratios=step.ratios,
        images=step.images,
        side=step.side,
        protect=prune.protect if prune else (),
        recurrent=prune.recurrent if prune else True,
        recover=step.recover,
        measure=step.measure,
        training=run.task,
        threads=run.threads,
        on_progress=run.on_progress,
        on_note=run.on_note,
    )


def _replace(run: Run, task: Task, model: onnx.ModelProto, step: ReplaceStep) -> onnx.ModelProto:
    def compute(file: Path) -> Replaced:
        return run_replace(
            model, task, file, step, threads=run.threads, on_progress=run.on_progress, on_note=run.on_note
        )

    return run.stage("replaced", replace_identity(model, task, step), compute)


def _prune(run: Run, task: Task, model: onnx.ModelProto, step: PruneStep, scan: Sensitivity | None) -> onnx.ModelProto:
    criterion = step.criterion or (scan.criterion if scan else "fpgm")
    kernels = timed_kernels(run.recipe)
    search = _search(run, task, model, step)

    def compute(file: Path) -> None:
        stages.run_prune(
            model,
            file,
            target=step.target.as_dict(),
            align=step.align,
            criterion=criterion,
            sensitivity=scan,
            scanned=run.original,
            input_shape=run.task.input_shape,
            protect=step.protect,
            recurrent=step.recurrent,
            allocation=step.allocation,
            table=LatencyTable(threads=run.recipe.compare.threads, on_note=run.on_note),
            precision=kernels,
            choose=search.choose if search else None,
            on_progress=run.on_progress,
            on_note=run.on_note,
        )

    settings = step.model_dump(exclude={"precision", "target", "search"})
    timed = [kernels, run.recipe.compare.threads]
    decides = timed if step.target.latency is not None else ""  # else it is only told
    searched = [search.identity()] if search else []
    curves = scan.curves if scan else ""
    identity = artifacts.fingerprint(
        stages.model_identity(model), settings, step.target.as_dict(), decides, criterion, curves, *searched
    )
    return run.stage("pruned", identity, compute, beside=(stages.PLAN_FILE,))


def _search(run: Run, task: Task, model: onnx.ModelProto, step: PruneStep) -> Search | None:
    """How the plan is searched for, by the measure of the recipe's scan on its images."""
    scan = run.recipe.find_step(SensitivityStep)
    if step.search is None or scan is None:
        return None
    return Search(
        model,
        task,
        run.task,
        step.search,
        run.recipe.out / CANDIDATES_FILE,
        side=scan.side,
        images=scan.images,
        seed=run.recipe.seed,
        threads=run.threads,
        on_progress=run.on_progress,
    )


def _reconstruct(
    run: Run, whole: onnx.ModelProto, pruned: onnx.ModelProto, plan: PruningPlan, step: ReconstructStep
) -> onnx.ModelProto:
    seed = run.recipe.seed

    def compute(file: Path) -> Reconstructed:
        return run_reconstruct(
            whole, pruned, plan, run.task, file, step, seed=seed, threads=run.threads, on_progress=run.on_progress
        )

    return run.stage("reconstructed", reconstruct_identity(whole, pruned, run.task, step, seed), compute)


def timed_kernels(recipe: Recipe) -> Kernels:
    """What predicts the time of a pruned network: the kernels that the recipe names, or that its last file will use."""
    prune, quantize = recipe.find_step(PruneStep), recipe.find_step(QuantizeStep)
    if prune is not None and prune.precision is not None:
        return prune.precision
    if quantize is None:
        return "float32"
    return "int8" if quantize.optimize == "size" else "mixed"


def _finetune(
    run: Run, stage: str, model: onnx.ModelProto, step: FinetuneStep, plan: PruningPlan | None = None
) -> onnx.ModelProto:
    recipe, teacher = run.recipe, run.teacher

    def compute(file: Path) -> None:
        kept = stages.kept_by_plan(run.original, plan, run.task.input_shape) if plan and step.features else None
        training.run_finetune(
            model,
            teacher,
            run.task,
            file,
            step,
            seed=recipe.seed,
            threads=run.threads,
            kept=kept,
            checkpoint=recipe.out / f"{stage}{CHECKPOINT}",
            on_progress=run.on_progress,
        )

    return run.stage(stage, training.train_identity(model, teacher, run.task, step, recipe.seed), compute)


def _quantize(run: Run, model: onnx.ModelProto, step: QuantizeStep) -> onnx.ModelProto:
    recipe = run.recipe

    def compute(file: Path) -> Quantized:
        return training.run_quantize(
            model,
            run.teacher,
            run.task,
            file,
            step,
            seed=recipe.seed,
            threads=run.threads,
            latency_threads=recipe.compare.threads,
            checkpoint=recipe.out / f"int8{CHECKPOINT}",
            on_progress=run.on_progress,
        )

    timed_on = () if step.optimize == "size" else (recipe.compare.threads,)  # else nothing is chosen by time
    trained = training.train_identity(model, run.teacher, run.task, step, recipe.seed)
    return run.stage("int8", artifacts.fingerprint(trained, timed_on), compute)


def _baseline_file(run: Run) -> Path:
    """The user's own file; a PyTorch model has none, so its export is written."""
    given = Path(run.recipe.model)
    if given.is_file():
        return given
    file = run.recipe.out / "baseline.onnx"
    save_model(run.original, file)
    return file
