"""With which settings each stage of a run was computed: names what changed where a result is stale, and removes results
that are to be computed again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from compress import artifacts
from compress.errors import ArtifactError, RecipeError, StaleError
from compress.pipeline.code import recipe_settings
from compress.pipeline.state import BEGUN, CHECKPOINT, FILES, ORDER, SETTINGS
from compress.pipeline.tasks import LABELS
from compress.recipe import Recipe

LABEL = "label"
"""The stage that labels images, before all steps."""
MOST = 5
"""How many changed settings a message names."""

_LEAVES: Mapping[str, tuple[str, ...]] = {
    LABEL: (f"{LABELS}/labels.json", f"{LABELS}/train.txt", f"{LABELS}/val.txt"),
    "sensitivity": ("sensitivity.json", "sensitivity.part*.json"),
    "replace": ("activations.json",),
    "prune": ("plan.json", "candidates.json"),
    "quantize": ("int8.placement.json", "int8.sensitivity.json"),
}
"""Stage -> what it leaves beside its file, the record, and what is there until it is finished."""


@dataclass(frozen=True)
class StageSettings:
    """Stage -> the recipe's settings that its results were computed with, by key."""

    stages: dict[str, dict[str, str]] = field(default_factory=dict)
    version: int = artifacts.VERSION


def note_settings(folder: Path, stage: str, recipe: Recipe) -> None:
    """Keep what a stage's results are computed with. `stage`: a step's name, or `LABEL`."""
    known = _load(folder).stages
    artifacts.save(StageSettings({**known, stage: recipe_settings(recipe)}), folder / SETTINGS)


def explained(error: StaleError, folder: Path, recipe: Recipe) -> StaleError:
    """The error that also says which settings changed, if the folder tells, and how to compute the stage again."""
    stage = stage_of(error.file)
    if stage is None:
        return error
    more = f"`compress run RECIPE --redo {stage}` computes it again, with all that follows from it."
    if (before := _load(folder).stages.get(stage)) is not None:
        now = recipe_settings(recipe)
        changed = changed_settings(before, now, stage)
        named = "; ".join(
            f"{key} was {before.get(key, 'not set')}, now {now.get(key, 'not set')}" for key in changed[:MOST]
        )
        more_changed = f"; {len(changed) - MOST} more" if len(changed) > MOST else ""
        unchanged = "Its settings did not change: a file that they name did."
        told = f"Changed: {named}{more_changed}." if changed else unchanged
        more = f"{told} {more}"
    return StaleError(f"{error} {more}", error.file)


def changed_settings(before: Mapping[str, str], now: Mapping[str, str], stage: str) -> list[str]:
    """Keys of what a stage may depend on that are set otherwise, its own step's first; not those of steps after it.

    >>> before = {"seed": "0", "steps.prune.align": "8", "steps.finetune.lr": "0.1"}
    >>> changed_settings(before, {"seed": "1", "steps.prune.align": "4", "steps.finetune.lr": "0.2"}, "prune")
    ['steps.prune.align', 'seed']
    """
    later = ORDER if stage == LABEL else ORDER[ORDER.index(stage) + 1 :]
    ignored = tuple(f"steps.{step}." for step in later)
    keys = sorted(dict.fromkeys((*before, *now)), key=lambda key: not key.startswith(f"steps.{stage}."))
    return [key for key in keys if before.get(key) != now.get(key) and not key.startswith(ignored)]


def stage_of(file: Path) -> str | None:
    """The stage that a file of a run's folder is of.

    >>> stage_of(Path("out/finetuned.json")), stage_of(Path("out/labels/labels.json")), stage_of(Path("plan.json"))
    ('finetune', 'label', 'prune')
    """
    if file.parent.name == LABELS:
        return LABEL
    by_name = {name: step for step, name in FILES.items()}
    by_file = {Path(left).name: step for step, leaves in _LEAVES.items() for left in leaves}
    return by_name.get(file.stem) or by_file.get(file.name)


def remove_results(recipe: Recipe, stage: str) -> None:
    """Remove what a stage left in a run's folder, and what was computed from it.

    Raises:
        RecipeError: the recipe has no such stage.
        OutputError: another process is writing there.
    """
    own = [*([LABEL] if recipe.data.images else ()), *sorted((step.name for step in recipe.steps), key=ORDER.index)]
    if stage not in own:
        raise RecipeError(f"--redo: the recipe has no step {stage!r}. Use one of {', '.join(own)}.")
    if stage == "teacher":  # nothing is scanned or pruned by it
        again = [step for step in own if step in ("teacher", "finetune", "quantize")]
    else:
        again = [step for step in own[own.index(stage) :] if step != "teacher" or stage == LABEL]
    with artifacts.lock(recipe.out):
        for step in again:
            name = FILES.get(step)
            leaves = [f"{name}{end}" for end in (".json", ".onnx", CHECKPOINT, BEGUN)] if name else []
            for left in (*leaves, *_LEAVES.get(step, ())):
                for file in recipe.out.glob(left):
                    file.unlink()


def _load(folder: Path) -> StageSettings:
    """What the folder tells; nothing where it does not, or cannot be read: it only explains."""
    try:
        return artifacts.load(StageSettings, folder / SETTINGS)
    except ArtifactError:
        return StageSettings()
