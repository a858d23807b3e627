"""A whole recipe, as one story: (teach ->) scan (-> replace) -> plan -> prune (-> reconstruct) -> fine-tune -> quantise
-> report.

Every stage leaves its file and a record of what it was computed from in the output folder, so a run that was stopped
anywhere, even killed, goes on where it was, and ends with the same files as a run in one go.
"""

from pathlib import Path

import onnx
import torch

from compress import artifacts
from compress.artifacts import PruningPlan, Report
from compress.compute.device import find_device
from compress.compute.launcher import local_number
from compress.compute.precision import check_precision
from compress.compute.processes import Team
from compress.errors import StaleError
from compress.graph import save_model
from compress.pipeline.diagnosis import check_normalisation, check_outputs, check_processing
from compress.pipeline.evaluation import default_threads
from compress.pipeline.labelling import label_unlabelled, with_labels
from compress.pipeline.models import is_factory, open_model
from compress.pipeline.stage_settings import LABEL, explained, note_settings
from compress.pipeline.stages.finetune import Finetuning
from compress.pipeline.stages.fitting import note_outputs
from compress.pipeline.stages.measure import measure_files
from compress.pipeline.stages.prune import Pruning
from compress.pipeline.stages.quantize import Quantisation
from compress.pipeline.stages.reconstruct import Reconstruction
from compress.pipeline.stages.replace import Replacement
from compress.pipeline.stages.report import make_report
from compress.pipeline.stages.scan import scan_of
from compress.pipeline.stages.scores import check_test_sets
from compress.pipeline.stages.search import check_search
from compress.pipeline.stages.stored_plan import PLAN_FILE
from compress.pipeline.state import LABELLED, Run, Stage
from compress.pipeline.tasks import recipe_task
from compress.pipeline.verifying import verify_images
from compress.progress import Note, Progress
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


def run_recipe(
    recipe: Recipe,
    command: str,
    on_progress: Progress | None = None,
    on_note: Note | None = None,
    *,
    verify: bool = False,
) -> Report:
    """Do what the recipe says and report it; see the module's text for resuming.

    Of several processes that torchrun started, this is what the first one does (see `compress.pipeline.together`).

    `on_progress` is called as (done, in all, message); `on_note` receives what is to be known on the way. With `verify`
    every image is read in full first, and compared with what it was (see `compress.pipeline.verifying`).

    Raises:
        StaleError: a stage was computed with other settings; the message names them.
        CompressError: anything a user can fix; what was finished before stays.
    """
    artifacts.check_writable(recipe.out)
    device = recipe_device(recipe)
    team = Team.join(device)
    with artifacts.lock(recipe.out):
        try:
            return _run_steps(recipe, command, on_progress, on_note, device, team, verify)
        except StaleError as error:
            raise explained(error, recipe.out, recipe) from error


def _run_steps(
    recipe: Recipe,
    command: str,
    on_progress: Progress | None,
    on_note: Note | None,
    device: torch.device,
    team: Team | None,
    verify: bool,
) -> Report:
    given = recipe
    notes: tuple[str, ...] = ()
    if recipe.data.images:
        if not (recipe.out / LABELLED).exists():
            note_settings(recipe.out, LABEL, given)
        labelled = with_labels(recipe, on_progress, on_note)
        recipe, notes = labelled.recipe, labelled.warnings
    if team is not None:
        team.send(recipe)
    task = recipe_task(recipe)
    check_test_sets(recipe, task)
    if verify:
        verify_images(recipe, task, on_progress, on_note)
    original = open_model(recipe.model, recipe.weights, task.input_shape, on_note)
    note_outputs(original, on_note)
    if not is_factory(recipe.model):
        check_normalisation(Path(recipe.model), task, on_note)
    if recipe.trains:
        check_outputs(original, task)
    if (asked := recipe.find_step(PruneStep)) is not None and asked.search is not None:
        check_search(original, asked.search)
    threads = recipe.threads or default_threads()
    check_processing(original, task, on_note, threads=threads)
    taught = label_unlabelled(task, original, threads=threads, on_progress=on_progress)
    run = Run(recipe, taught, original, original, threads, on_progress, on_note, device, team, given=given, notes=notes)
    files = {"baseline": _baseline_file(run)}

    def finished(step: str, stage: Stage) -> onnx.ModelProto:
        known = (recipe.out / f"{stage.name}.json").exists()
        model = run.stage(stage)
        if not known:
            note_settings(recipe.out, step, given)
        files[stage.name] = recipe.out / f"{stage.name}.onnx"
        return model

    model = original
    if (teach := recipe.find_step(TeacherStep)) is not None:
        run.teacher = finished("teacher", Finetuning(run, "teacher", original, teach.as_finetune()))
    if recipe.find_step(SensitivityStep) is not None and not (recipe.out / "sensitivity.json").exists():
        note_settings(recipe.out, "sensitivity", given)
    scan = scan_of(run, task)
    if (replace := recipe.find_step(ReplaceStep)) is not None:
        model = finished("replace", Replacement(run, task, model, replace))
    plan: PruningPlan | None = None
    if (prune := recipe.find_step(PruneStep)) is not None:
        whole, model = model, finished("prune", Pruning(run, task, model, prune, scan))
        plan = artifacts.load(PruningPlan, recipe.out / PLAN_FILE)
        if (reconstruct := recipe.find_step(ReconstructStep)) is not None:
            model = finished("reconstruct", Reconstruction(run, whole, model, plan, reconstruct))
    if (finetune := recipe.find_step(FinetuneStep)) is not None:
        model = finished("finetune", Finetuning(run, "finetuned", model, finetune, plan))
    if (quantize := recipe.find_step(QuantizeStep)) is not None:
        finished("quantize", Quantisation(run, model, quantize))
    if team is not None:
        team.send(None)  # what follows is timed
        team.leave()
    measured = measure_files(run, files)
    report = make_report(run, command, measured, plan, scan)
    write_report(report, recipe.out, scan)
    return report


def recipe_device(recipe: Recipe) -> torch.device:
    """What a recipe trains on.

    Raises:
        DeviceError: it is not there, or does not compute in the precision that a step names.
    """
    device = find_device(recipe.device, local_number())
    for step in (recipe.find_step(TeacherStep), recipe.find_step(FinetuneStep)):
        if step is not None:
            check_precision(step.precision, device)
    return device


def _baseline_file(run: Run) -> Path:
    """The user's own file; a PyTorch model has none, so its export is written."""
    given = Path(run.recipe.model)
    if given.is_file():
        return given
    file = run.recipe.out / "baseline.onnx"
    save_model(run.original, file)
    return file
