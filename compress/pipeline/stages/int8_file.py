"""The last part of quantisation: the int8 file, its recurrent layers in the form that measures best, and its parity."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from torch import fx

from compress.artifacts import Parity, Quantized
from compress.errors import ParityError
from compress.export import Exported, check_parity, export_int8
from compress.export.parity import Reading
from compress.export.recurrent_forms import RecurrentForm, forms_of
from compress.measure.latency import measure_latency
from compress.quant.recurrent_weights import round_recurrent
from compress.recipe import QuantizeStep

TOLERANCE = 0.0025
"""A form may score this much below the best one if its file is smaller: one or two words of a few hundred."""
SIMILAR_BYTES = 1.02
"""Files within this ratio count as equally small; the better metric decides between them."""
SIMILAR_TIME = 1.02
"""Files within this ratio count as equally fast."""
ROUNDS, BUDGET_S = 40, 10.0
"""Timed rounds of all forms, fewer if that takes longer."""


@dataclass(frozen=True)
class Candidate:
    """One form of the recurrent layers, its file, and what the file scores."""

    form: RecurrentForm
    exported: Exported
    metric: float
    ms: float | None = None
    """Median time of an image, where it was requested."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the file."""
        return self.exported.model.ByteSize()

    def describe(self) -> str:
        """Form, metric, size, and time where it is known."""
        time = "" if self.ms is None else f" and {self.ms:.2f} ms"
        return f"{self.form} {self.metric:.4f} in {self.size_bytes / 1000:.1f} KB{time}"


def export_form(
    module: fx.GraphModule, lowered: onnx.ModelProto, step: QuantizeStep, form: RecurrentForm | None = None
) -> Exported:
    """The int8 file with recurrent layers in one form; None takes the step's, or `weights` while it is undecided."""
    if form is None:
        form = "weights" if step.recurrent == "auto" else step.recurrent
    return export_int8(module, lowered, recurrent=form, weight_bits=step.weight_bits)


def export_checked(
    module: fx.GraphModule,
    lowered: onnx.ModelProto,
    step: QuantizeStep,
    score: Callable[[onnx.ModelProto], float],
    images: np.ndarray,
    latency_threads: int = 1,
    reading: Reading | None = None,
) -> tuple[onnx.ModelProto, Quantized]:
    """The int8 file of a trained network, its recurrent layers in the form that the step names or that measures best.

    Args:
        module: the trained network.
        lowered: the float model it was imported from.
        step: names one form, or leaves the choice to what is measured (see `best_candidate`).
        score: file -> metric on the validation data.
        images: [N, 3, H, W] to compare file and network on.
        latency_threads: of onnxruntime, to time forms with.
        reading: what the outputs mean.

    Raises:
        ParityError: the file does not compute what the network computes.
    """
    forms = forms_of(lowered)
    if step.recurrent != "auto" or len(forms) == 1:
        exported = export_form(module, lowered, step)
        parity = check_export(module, exported, images, reading)
        return exported.model, Quantized(parity, _as_asked(step.recurrent, forms))
    made = {form: export_form(module, lowered, step, form) for form in forms}
    times = {} if step.optimize == "size" else _times(made, images, latency_threads)
    candidates = [Candidate(form, one, score(one.model), times.get(form)) for form, one in made.items()]
    return _best_that_agrees(candidates, module, images, reading)


def _times(made: Mapping[RecurrentForm, Exported], images: np.ndarray, threads: int) -> dict[str, float]:
    """Median milliseconds of an image of this size, the files interleaved."""
    files = {str(form): one.model.SerializeToString() for form, one in made.items()}
    _, channels, height, width = images.shape
    found = measure_latency(files, (channels, height, width), threads=threads, rounds=ROUNDS, budget_s=BUDGET_S)
    return {form: latency.median_ms for form, latency in found.items()}


def _as_asked(asked: str, forms: tuple[RecurrentForm, ...]) -> tuple[str, ...]:
    """What became of a form that the recipe names."""
    if asked == "auto":
        return ()
    if len(forms) == 1:
        return (f"recurrent: {asked} changes nothing: the model has no LSTM or GRU layer",)
    if asked not in forms:
        return (f"recurrent layers: {forms[-1]}; {asked} exists for LSTM layers only",)
    return (f"recurrent layers: {asked}, as the recipe says",)


def _best_that_agrees(
    candidates: list[Candidate], module: fx.GraphModule, images: np.ndarray, reading: Reading | None
) -> tuple[onnx.ModelProto, Quantized]:
    """The best candidate; not one in integers whose rounding is too coarse for the network."""
    measured = ", ".join(one.describe() for one in candidates)
    notes: tuple[str, ...] = ()
    while True:
        best = best_candidate(candidates)
        try:
            parity = check_export(module, best.exported, images, reading)
        except ParityError as error:
            if best.form != "dynamic":
                raise
            candidates = [one for one in candidates if one is not best]
            notes = (f"recurrent layers: not dynamic, {error}",)
        else:
            return best.exported.model, Quantized(parity, (f"recurrent layers: {best.form}, of {measured}", *notes))


def best_candidate(candidates: list[Candidate]) -> Candidate:
    """The smallest file whose metric is within TOLERANCE of the best; of equally small ones the faster, or else better.

    Where that is the same too, the first: `weights` reads an image alike in every batch, `dynamic` need not.
    """
    top = max(one.metric for one in candidates)
    able = [one for one in candidates if one.metric >= top - TOLERANCE]
    least = min(one.size_bytes for one in able)
    small = [one for one in able if one.size_bytes <= SIMILAR_BYTES * least]
    fastest = min((one.ms for one in small if one.ms is not None), default=None)
    if fastest is not None:
        small = [one for one in small if one.ms is not None and one.ms <= SIMILAR_TIME * fastest]
    return max(small, key=lambda one: one.metric)


def check_export(
    module: fx.GraphModule, exported: Exported, images: np.ndarray, reading: Reading | None = None
) -> Parity:
    """Compare the file with the network that it holds, recurrent weights rounded as they are in it.

    Raises:
        ParityError: they do not compute the same (see `check_parity`).
    """
    return check_parity(round_recurrent(module, exported.recurrent_bits), exported, images, reading=reading)
