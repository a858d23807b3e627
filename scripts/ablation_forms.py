"""Rows of an ablation (scripts/ablate.py) that export one trained network with its LSTM in different forms."""

from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from compress.artifacts import Quantized, StageResult, fingerprint
from compress.errors import UnsupportedOpError
from compress.export.recurrent import forms_of
from compress.graph import read_model, save_model
from compress.pipeline import open_model
from compress.pipeline.evaluation import default_threads
from compress.pipeline.stages.measure import measure_files
from compress.pipeline.stages.quantize import export_trained, lower_and_place, train_int8
from compress.pipeline.stages.training import train_identity
from compress.pipeline.state import Run, Stage
from compress.progress import Progress
from compress.recipe import QuantizeStep, Recipe
from compress.tasks.base import Task


def run_form(
    base: Recipe, recipe: Recipe, task: Task, checkpoint: Path, on_progress: Progress
) -> dict[str, StageResult]:
    """Export the base's int8 network in the form that a recipe names; its stages are what `run_recipe` would give.

    The network is trained as the base says, once: rows differ in the file alone, not in which epoch was the best.

    Args:
        base: the recipe that training goes by; its folder holds the fine-tuned file.
        recipe: the same but for `quantize.recurrent`; its folder takes the result.
        task: of both.
        checkpoint: the trained network, made if it is not there, and kept.
        on_progress: as for `run_recipe`.

    Raises:
        UnsupportedOpError: there is no LSTM or GRU, or none that has this form.
    """
    trained, step = base.find_step(QuantizeStep), recipe.find_step(QuantizeStep)
    assert trained is not None
    assert step is not None
    original = open_model(recipe.model, recipe.weights, task.input_shape)
    if step.recurrent not in forms_of(original) or len(forms_of(original)) == 1:
        raise UnsupportedOpError(f"quantize.recurrent: {step.recurrent}: no layer of the model can have this form")
    run = Run(recipe, task, original, _teacher(base, original), recipe.threads or default_threads(), on_progress)
    model = read_model(base.out / "finetuned.onnx")
    run.stage(_Form(run, base, model, trained, step, checkpoint))
    files = {"baseline": _baseline(run), "finetuned": base.out / "finetuned.onnx", "int8": recipe.out / "int8.onnx"}
    results = measure_files(run, files).results
    return {result.stage: result for result in results}


@dataclass(frozen=True)
class _Form(Stage):
    """The network that `trained` describes, in the form that `step` names."""

    run: Run
    base: Recipe
    model: onnx.ModelProto
    trained: QuantizeStep
    step: QuantizeStep
    checkpoint: Path

    name = "int8"

    def identity(self) -> str:
        run = self.run
        trained = train_identity(self.model, run.teacher, run.task, self.trained, run.recipe.seed)
        return fingerprint(trained, self.step.recurrent)

    def compute(self, file: Path) -> Quantized:
        run, threads = self.run, self.base.compare.threads
        lowered = lower_and_place(self.model, run.task, self.trained, self.base.out / "int8.onnx", threads=threads)
        qat = train_int8(
            self.model,
            lowered,
            run.teacher,
            run.task,
            self.trained,
            replace(run.execution(), checkpoint=self.checkpoint),
        )
        made, quantized = export_trained(qat, lowered.model, run.task, self.step, run.threads, threads)
        save_model(made, file)
        return quantized


def _teacher(base: Recipe, original: onnx.ModelProto) -> onnx.ModelProto:
    file = base.out / "teacher.onnx"
    return read_model(file) if any(step.name == "teacher" for step in base.steps) else original


def _baseline(run: Run) -> Path:
    """The user's own file; a PyTorch model has none, so its export is written."""
    given = Path(run.recipe.model)
    if given.is_file():
        return given
    file = run.recipe.out / "baseline.onnx"
    save_model(run.original, file)
    return file
