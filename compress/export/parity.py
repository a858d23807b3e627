"""Check that an exported file computes what the network it came from computes.

Two comparisons, each with onnxruntime's optimisation off (the file as written) and on (integer kernels):
*step by step*, every integer tensor is recomputed by the network from the file's own inputs to that step (see
`compress.export.replay`), and the outputs from the last integers; and *end to end*, where a tie that falls the other
way early on grows from layer to layer: what the outputs mean must agree.

Rounding leaves a tie as the only freedom: a file's integer may differ from the network's only where the network's
value lies in the middle of two. The figures of honest files below are the largest of the three models that ship, three
deployed ones (PP-OCR's classifier, recogniser and detector) and all networks of the tests, calibrated, of 7 and 8 bits,
both ways of running; which wrong files each limit catches stands in docs/parity.md.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx

from compress.artifacts import Parity
from compress.data.charset import BLANK
from compress.errors import ParityError
from compress.export.qdq import Exported
from compress.export.replay import Replayed, Step, replay
from compress.measure.session import Session
from compress.tasks.db_boxes import BoxSettings

MAX_STEPS = 1.0
"""Largest difference of an integer tensor: a tie falls to one of two neighbours."""
MAX_EXCESS = 0.05
"""Largest distance of a file's integer from the network's value before rounding, beyond the half step that rounding is:
what float arithmetic in another order may come to. Honest files: .0012; a bias off by more than this share of a step is
seen at a few values already."""
MAX_SHARE = 0.02
"""Largest share of a tensor's values that differ. Honest files: .0012 (a sum of two tensors, where one pair of integers
in a thousand lies in an exact middle); a bias off by a fiftieth of a step is seen."""
MAX_BIAS = 0.01
"""Largest mean of the differences, with their signs, in steps. Honest files: .0012, those exact middles, which one
kernel rounds up and the other to even; elsewhere ties fall to both sides."""
MIN_TIES = 16
"""So many values may differ in any tensor: of a few hundred values a share says nothing. Honest small tensors: 7."""
MAX_OUTPUT = 1e-4
"""Largest difference of an output from the network's on the file's last integers, over the largest value: float
arithmetic in another order. Honest files: 1.0e-6."""
MAX_MEAN_RECURRENT = 0.02
"""Mean difference of what an LSTM computes in integers from what it computes in float of the same input, over the
largest value where that is above 1: above it, rounding is too coarse for the network. Honest files: .0069."""
MAX_LSTM_KERNEL = 0.002
"""Mean difference of what an LSTM computes in integers from the network's own integers, over the mean size. Honest
files: 1.4e-6; a state in the middle of two steps moves all that follow by 1/255 of a weight."""
MAX_DECISIONS = 0.1
"""Largest share of what the outputs say (text pixels, steps that are not blank, images) that the file says otherwise
although the network is sure of it. Differences of one step amplify through the layers: end to end, honest files come to
.032. Of a map only what lies more than a pixel from the other's text counts: the edge of a line of five pixels moves by
one with next to nothing (PP-OCRv4's detector: 13.5 % of the pixels of either text, 2.2 % beyond one pixel)."""
MIN_DECISIONS = 2
"""So many may differ in any case: of ten images a share says nothing."""
SURE = 0.05
"""A network is sure of what it prefers by more than this probability."""
MAX_MEAN_OUTPUT = 0.2
"""Mean difference over the mean size, of outputs that are no decisions. Honest files: .020."""
ADVICE = "On x86 CPUs without VNNI, 8-bit weights saturate in 16-bit sums: use weight_bits: 7 there."
THRESHOLD = BoxSettings.threshold


@dataclass(frozen=True)
class Reading:
    """What a network's outputs mean: `probabilities` makes [N, T, K], [N, K] or maps [N, 1, H, W] of them; above
    `threshold` a pixel of a map is text; `blank` is CTC's class."""

    threshold: float = THRESHOLD
    blank: int = BLANK
    probabilities: Callable[[np.ndarray], np.ndarray] = lambda outputs: outputs


@dataclass(frozen=True)
class Difference:
    """One way in which a file is not its network."""

    check: str
    """Which limit: `steps`, `rounding`, `share`, `bias`, `coarse LSTM`, `LSTM`, `output` or `decisions`."""
    where: str
    """Tensor, layer or output."""
    figure: float
    allowed: float
    message: str


def check_parity(
    module: fx.GraphModule, exported: Exported, images: np.ndarray, *, reading: Reading | None = None
) -> Parity:
    """Compare file and network on real images; end to end only the first output.

    Args:
        module: the trained network, recurrent weights rounded as they are in the file.
        exported: its file.
        images: [N, C, H, W].
        reading: what its outputs mean.

    Raises:
        ParityError: a tensor or output differs by more than rounding explains; the message names the first that does.
        ModelError: onnxruntime cannot load or run the file.
    """
    reading = reading or Reading()
    replays: dict[bool, Replayed] = {}
    found: dict[bool, np.ndarray] = {}
    for optimise in (False, True):
        replays[optimise] = replay(module, exported, images, optimise=optimise)
        _refuse(stepwise_differences(replays[optimise]), optimise, len(replays[optimise].steps))
        found[optimise] = Session(exported.model, optimise=optimise).run(images)
    with torch.no_grad():
        results = module(torch.from_numpy(images))
    wanted = (results[0] if isinstance(results, tuple) else results).cpu().numpy()
    for optimise in (False, True):
        _refuse(decided_otherwise(found[optimise], wanted, reading), optimise)
    steps = replays[False].steps + replays[True].steps
    off, on = np.abs(found[False] - wanted), np.abs(found[True] - wanted)
    return Parity(
        max_abs=float(off.max()),
        mean_abs=float(off.mean()),
        max_abs_optimised=float(on.max()),
        mean_abs_optimised=float(on.mean()),
        agreement=agreement(found[True], wanted, reading),
        tolerance=MAX_STEPS,
        count=len(images),
        max_steps=max((step.worst for step in replays[False].steps), default=0.0),
        max_steps_optimised=max((step.worst for step in replays[True].steps), default=0.0),
        max_share=max((step.share for step in steps), default=0.0),
        max_bias=max((step.bias for step in steps), key=abs, default=0.0),
        max_excess=max((step.excess for step in steps), default=0.0),
    )


def compare_steps(module: fx.GraphModule, exported: Exported, images: np.ndarray, *, optimise: bool) -> list[Step]:
    """Recompute each integer tensor from the file's own previous ones, in execution order."""
    return replay(module, exported, images, optimise=optimise).steps


def stepwise_differences(replayed: Replayed) -> Iterator[Difference]:
    """What is above a limit, tensor by tensor; first the integers in execution order, then LSTMs and outputs."""
    for step in replayed.steps:
        yield from judge_step(step)
    for name, figure in replayed.coarseness.items():
        if not figure <= MAX_MEAN_RECURRENT:
            yield Difference(
                "coarse LSTM",
                name,
                figure,
                MAX_MEAN_RECURRENT,
                f"the LSTM {name!r} in integers differs by {figure:.3f} on average from what the trained model makes "
                f"of the file's own integers (allowed: {MAX_MEAN_RECURRENT:g}), %s. Use recurrent: weights.",
            )
    for name, figure in replayed.kernels.items():
        if not figure <= MAX_LSTM_KERNEL:
            yield Difference(
                "LSTM",
                name,
                figure,
                MAX_LSTM_KERNEL,
                f"the LSTM {name!r} in integers differs by {figure:.2%} of its mean size from what the trained model "
                f"computes in integers (allowed: {MAX_LSTM_KERNEL:.1%}), %s. Use recurrent: weights.",
            )
    for name, figure in replayed.outputs.items():
        if not figure <= MAX_OUTPUT:
            yield Difference(
                "output",
                name,
                figure,
                MAX_OUTPUT,
                f"the int8 file's output {name!r} differs by {figure:.3g} of its largest value from what the trained "
                f"model makes of the file's own integers (allowed: {MAX_OUTPUT:g}), %s.",
            )


def judge_step(step: Step) -> Iterator[Difference]:
    """The first limit that one tensor is above, if any.

    >>> list(judge_step(Step("x", 1000, worst=1.0, share=0.003, bias=-0.001, excess=0.0)))
    []
    >>> [found.check for found in judge_step(Step("x", 1000, worst=1.0, share=0.003, bias=-0.001, excess=0.4))]
    ['rounding']
    """
    share, bias = max(MAX_SHARE, MIN_TIES / step.count), max(MAX_BIAS, MIN_TIES / step.count)
    how = f"{step.share:.1%} of its values differ, by {step.bias:+.3f} steps on average"
    start = f"the int8 file differs from the trained model at {step.name!r} by"
    if not step.worst <= MAX_STEPS:
        message = f"{start} {step.worst:.1f} steps (allowed: {MAX_STEPS:g}), %s; {how}."
        yield Difference("steps", step.name, step.worst, MAX_STEPS, message)
    elif not step.excess <= MAX_EXCESS:
        message = f"{start} {step.excess:.2f} steps more than rounding (allowed: {MAX_EXCESS:g}), %s; {how}."
        yield Difference("rounding", step.name, step.excess, MAX_EXCESS, message)
    elif not step.share <= share:
        message = f"{start} one step in too many places: {how} (allowed: {share:.1%}), %s."
        yield Difference("share", step.name, step.share, share, message)
    elif not abs(step.bias) <= bias:
        message = f"{start} a bias: {how} (allowed: {bias:.3f}), %s."
        yield Difference("bias", step.name, abs(step.bias), bias, message)


def decided_otherwise(found: np.ndarray, wanted: np.ndarray, reading: Reading | None = None) -> Iterator[Difference]:
    """Whether outputs say something else than the network's, end to end."""
    decisions = _decisions(found, wanted, reading or Reading(), edges=False)
    if decisions is None:
        figure, allowed = float(np.abs(found - wanted).sum() / max(float(np.abs(wanted).sum()), 1e-6)), MAX_MEAN_OUTPUT
        what = f"differ by {figure:.1%} of their mean size"
    else:
        counted, differ, sure = decisions
        number = max(1, int(counted.sum()))
        figure, allowed = float((differ & sure).sum()) / number, max(MAX_DECISIONS, MIN_DECISIONS / number)
        what = f"say something else in {figure:.1%} of what they say"
    if not figure <= allowed:
        message = f"the int8 file's outputs {what}, end to end (allowed: {allowed:.0%}), %s."
        yield Difference("decisions", "output", figure, allowed, message)


def agreement(found: np.ndarray, wanted: np.ndarray, reading: Reading | None = None) -> float:
    """Share of what the network says that the file says, too.

    Of a map [N, 1, H, W] the text pixels of either; of probabilities [N, T, K] the steps that are not blank for both;
    of [N, K] the images; of other outputs 1 minus the mean difference over the mean size.

    >>> agreement(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([[0.8, 0.2], [0.6, 0.4]]))
    0.5
    """
    decisions = _decisions(found, wanted, reading or Reading())
    if decisions is None:
        return max(0.0, 1.0 - float(np.abs(found - wanted).sum() / max(float(np.abs(wanted).sum()), 1e-6)))
    counted, differ, _ = decisions
    return 1.0 - float(differ.sum()) / max(1, int(counted.sum()))


def _decisions(
    found: np.ndarray, wanted: np.ndarray, reading: Reading, *, edges: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Where outputs say something, where the two say different things, and where the network is sure; or None.

    Without `edges`, text within a pixel of the other's text is not different.
    """
    found, wanted, threshold = reading.probabilities(found), reading.probabilities(wanted), reading.threshold
    if wanted.ndim == 4 and wanted.shape[1] == 1:
        theirs, ours = found > threshold, wanted > threshold
        differ = theirs != ours
        if not edges:
            differ &= ~(_widened(theirs) & _widened(ours))
        return theirs | ours, differ, np.abs(wanted - threshold) > SURE
    if wanted.ndim not in (2, 3) or wanted.min() < 0 or np.abs(wanted.sum(-1) - 1).max() > 0.01:
        return None
    theirs, ours = found.argmax(-1), wanted.argmax(-1)
    chosen = np.take_along_axis(wanted, theirs[..., None], -1)[..., 0]
    counted = np.ones(ours.shape, bool) if wanted.ndim == 2 else (theirs != reading.blank) | (ours != reading.blank)
    return counted, theirs != ours, wanted.max(-1) - chosen > SURE


def _widened(text: np.ndarray) -> np.ndarray:
    """Maps [N, 1, H, W] of text, one pixel wider on every side."""
    maps = torch.from_numpy(text.astype(np.float32))
    wider: np.ndarray = torch.nn.functional.max_pool2d(maps, 3, stride=1, padding=1).numpy() > 0
    return wider


def _refuse(differences: Iterator[Difference], optimise: bool, tensors: int = 0) -> None:
    """Raise for the first difference."""
    found = list(differences)
    if not found:
        return
    first = found[0]
    integers = sum(one.check in ("steps", "rounding", "share", "bias") for one in found)
    more = f" {integers} of {tensors} tensors differ so." if integers else ""
    advice = f" {ADVICE}" if optimise and not first.check.endswith("LSTM") else ""
    how = f"onnxruntime's optimisation {'on' if optimise else 'off'}"
    raise ParityError(f"{first.message.replace('%s', how)}{more}{advice}", first.check, first.figure)
