"""The last part of quantisation: the int8 file, its recurrent layers in the form that measures best, and its parity."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from torch import fx

from compress.artifacts import Quantized
from compress.export import Exported, check_parity, export_int8
from compress.export.recurrent import WEIGHT_BITS, RecurrentForm, forms_of
from compress.quant.recurrent import round_recurrent
from compress.recipe import QuantizeStep

TOLERANCE = 0.0025
"""A form may score this much below the best one if its file is smaller: one or two words of a few hundred."""
SIMILAR_BYTES = 1.02
"""Files within this ratio count as equally small; the better metric decides between them."""


@dataclass(frozen=True)
class Candidate:
    """One form of the recurrent layers, its file, and what the file scores."""

    form: RecurrentForm
    exported: Exported
    metric: float

    @property
    def size_bytes(self) -> int:
        """Bytes of the file."""
        return self.exported.model.ByteSize()


def export_form(
    module: fx.GraphModule, lowered: onnx.ModelProto, step: QuantizeStep, form: RecurrentForm | None = None
) -> Exported:
    """The int8 file with recurrent layers in one form; None takes the step's, or `weights` while it is undecided."""
    if form is None:
        form = "weights" if step.recurrent == "auto" else step.recurrent
    return export_int8(module, lowered, recurrent=form, weight_bits=step.weight_bits)


def choose_form(
    module: fx.GraphModule, lowered: onnx.ModelProto, step: QuantizeStep, score: Callable[[onnx.ModelProto], float]
) -> tuple[Exported, tuple[str, ...]]:
    """Export in every form that the step allows, and keep the one of `best_candidate`; a line says what was measured.

    Args:
        module: the trained network.
        lowered: the float model it was imported from.
        step: names one form, or leaves the choice to what is measured.
        score: file -> metric on the validation data.
    """
    forms = forms_of(lowered)
    if len(forms) == 1:
        return export_form(module, lowered, step, "float"), ()
    if step.recurrent != "auto":
        return export_form(module, lowered, step), (f"recurrent layers: {step.recurrent}, as the recipe says",)
    candidates = []
    for form in forms:
        exported = export_form(module, lowered, step, form)
        candidates.append(Candidate(form, exported, score(exported.model)))
    best = best_candidate(candidates)
    measured = ", ".join(f"{one.form} {one.metric:.4f} in {one.size_bytes / 1000:.1f} KB" for one in candidates)
    return best.exported, (f"recurrent layers: {best.form}, of {measured}",)


def best_candidate(candidates: list[Candidate]) -> Candidate:
    """The smallest file whose metric is within TOLERANCE of the best; of equally small ones the best metric.

    Where that is the same too, the last: the forms come in rising order of speed.
    """
    top = max(one.metric for one in candidates)
    able = [one for one in candidates if one.metric >= top - TOLERANCE]
    least = min(one.size_bytes for one in able)
    small = [one for one in able if one.size_bytes <= SIMILAR_BYTES * least]
    return max(reversed(small), key=lambda one: one.metric)


def check_export(module: fx.GraphModule, exported: Exported, images: np.ndarray, notes: tuple[str, ...]) -> Quantized:
    """Compare the file with the network that it holds (see `check_parity`).

    Raises:
        ParityError: they do not compute the same.
    """
    twin = module if exported.recurrent == "float" else round_recurrent(module, WEIGHT_BITS)
    return Quantized(check_parity(twin, exported, images), notes)
