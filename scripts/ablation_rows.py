"""The rows of an ablation (scripts/ablate.py): which keys of the recipe each of them changes."""

from dataclasses import dataclass

from compress.artifacts import PruningPlan
from compress.errors import CompressError
from compress.graph import to_torch
from compress.pipeline import open_model
from compress.pipeline.models import expand_names
from compress.prune.groups import find_groups
from compress.prune.plan import plan_macs
from compress.prune.ranking import Network
from compress.recipe import FinetuneStep, PruneStep, QuantizeStep, Recipe, TeacherStep

LSTM_FORMS = ("float", "weights", "dynamic")
FORM = "lstm-"
"""Rows that export one network in different forms have names that begin so."""
L2_ON_ALPHA = ("0", "1e-4", "1e-3")
UNPRUNED = ("sensitivity", "prune", "quantize")
"""Steps that a network does without that is fine-tuned only."""
BUILDS_ON: dict[str, set[str]] = {
    "teacher": set(),
    "sensitivity": set(),
    "replace": set(),
    "prune": {"sensitivity", "replace"},
    "reconstruct": {"prune"},
    "finetune": {"teacher", "replace", "prune", "reconstruct"},
    "quantize": {"teacher", "replace", "finetune"},
}
MACS = (0.8, 0.65, 0.54, 0.4)
"""Shares of multiply-adds that rows of fine-tuned, unquantised networks keep: -20, -35, -46 (PP-OCR's), -60 %."""
EXCESSES = tuple(step / 1000 for step in range(11))
"""How far above a plan's share of multiply-adds a uniform plan may be asked for, as parts of it."""


@dataclass(frozen=True)
class Row:
    """One row: the recipe with `settings` (as for `compress run --set`) on top, and without some of its steps."""

    name: str
    title: str
    settings: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


def all_rows(base: Recipe) -> tuple[Row, ...]:
    """Every row that the recipe can have, in the order of the table.

    Raises:
        CompressError: a step is missing that the rows are variations of.
    """
    finetune, quantize = base.find_step(FinetuneStep), base.find_step(QuantizeStep)
    if base.find_step(PruneStep) is None or finetune is None or quantize is None:
        found = ", ".join(step.name for step in base.steps)
        raise CompressError(f"steps: got {found}. Must hold prune, finetune and quantize, to vary each of them.")
    lesson = base.find_step(TeacherStep)
    rows = [
        Row("fp32", "fp32, as deployed"),
        *control_rows(finetune, quantize, lesson),
        Row("base", "the recipe: per-layer ratios, PACT"),
        Row("threshold", "per-layer ratios by PaddleSlim's rule", ("prune.allocation=threshold",)),
        Row("uniform", "one ratio for all layers, MACs as near as it goes", without=("sensitivity",)),
        Row("no-distill", "no distillation", ("finetune.distill=0", "quantize.distill=0"), ("teacher",)),
    ]
    if lesson:
        rows.append(Row("first-teacher", "distilled from the original, not fine-tuned first", without=("teacher",)))
    rows += [
        Row("plain-qat", "plain QAT: ranges stay as calibrated", ("quantize.pact.enabled=false",)),
        *(Row(f"pact-l2-{l2}", f"PACT, L2 on alpha {l2}", (f"quantize.pact.l2={l2}",)) for l2 in L2_ON_ALPHA),
        Row("live-bn", "BatchNorm live in fine-tuning", ("finetune.freeze_bn=false",)),
        Row("frozen-bn", "BatchNorm frozen in fine-tuning", ("finetune.freeze_bn=true",)),
    ]
    if base.task.kind == "detection":
        rows += [row for share in MACS for row in macs_rows(share)]
        mild = (f"finetune.lr={lesson.lr:g}",) if lesson else ()
        rows.append(Row("unpruned-int8", "PACT only: not pruned", mild, ("sensitivity", "prune")))
    if base.task.kind == "recognition":
        rows += [Row(FORM + form, f"LSTM: {form}", (f"quantize.recurrent={form}",)) for form in LSTM_FORMS]
    return tuple(rows)


def control_rows(finetune: FinetuneStep, quantize: QuantizeStep, lesson: TeacherStep | None) -> list[Row]:
    """What training alone gains: the network neither pruned nor quantised, trained for as many epochs in all."""
    epochs = f"finetune.epochs={finetune.epochs + quantize.epochs}"
    rows = [Row("control", "fp32 fine-tuned, neither pruned nor quantised, as many epochs in all", (epochs,), UNPRUNED)]
    if lesson:
        alone = ("sensitivity", "prune", "finetune", "quantize")
        rows.insert(0, Row("teacher", "the teacher: fp32 fine-tuned first", without=alone))
        mild = (epochs, f"finetune.lr={lesson.lr:g}")
        rows.append(Row("control-mild", "the same at the teacher's learning rate", mild, UNPRUNED))
    if finetune.distill:
        without = ("teacher", *UNPRUNED)
        rows.append(Row("control-alone", "the same without distillation", (epochs, "finetune.distill=0"), without))
    return rows


def macs_rows(share: float) -> list[Row]:
    """Fine-tuned in float at that share of the multiply-adds: ratios by sensitivity, and one for all layers."""
    settings = (f"prune.target={{macs: {share:g}}}",)
    name = f"{share:.2f}".removeprefix("0.")
    return [
        Row(f"macs-{name}", f"FPGM, {share - 1:.0%} MACs, ratios by sensitivity", settings, ("quantize",)),
        Row(f"macs-{name}-uniform", f"FPGM, {share - 1:.0%} MACs, one ratio", settings, ("sensitivity", "quantize")),
    ]


def choose(rows: tuple[Row, ...], names: str | None) -> tuple[Row, ...]:
    """The rows named in a comma-separated list; all for None.

    Raises:
        CompressError: there is no row of that name.
    """
    if names is None:
        return rows
    by_name = {row.name: row for row in rows}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted or any(name not in by_name for name in wanted):
        raise CompressError(f"--rows: got {names!r}. Must be names from: {', '.join(by_name)}.")
    return tuple(by_name[name] for name in wanted)


def shared_steps(base: Recipe, recipe: Recipe) -> list[str]:
    """Names of the steps that give the same in both: equal themselves, and so is all that they build on."""
    own, other = ({step.name: step for step in each.steps} for each in (recipe, base))
    shared: list[str] = []
    for name, step in other.items():
        ready = all(need in shared or need not in {**own, **other} for need in BUILDS_ON[name])
        if ready and own.get(name) == step:
            shared.append(name)
    return shared


def uniform_share(recipe: Recipe, plan: PruningPlan) -> tuple[float, int]:
    """The share of multiply-adds to ask for, so that one ratio for all groups leaves nearly what a plan leaves.

    Rounded to multiples of `align`, many groups change width at the same ratio; `plan_macs` lets some of them keep the
    wider one where the share allows. Several shares are tried, since the nearest result may lie above the plan's.

    Returns:
        The share of all multiply-adds, and how many it leaves.
    """
    step = recipe.find_step(PruneStep)
    assert step is not None
    channels, height, width = recipe.task.input_shape
    shape = (channels, height, width)
    module = to_torch(open_model(recipe.model, recipe.weights, shape))
    groups = find_groups(
        module, shape, expand_names(module, step.protect, "protect"), step.recurrent, layer_norms=step.layer_norms
    )
    network = Network(module, groups, shape, step.criterion or "fpgm", step.align)
    shares = [round(min(1.0, plan.macs_after / plan.macs_before * (1 + excess)), 6) for excess in EXCESSES]
    tried = {share: plan_macs(network, share).macs_after for share in shares}
    return min(tried.items(), key=lambda item: abs(item[1] - plan.macs_after))
