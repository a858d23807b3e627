"""Check that an exported file computes what the model it came from computes.

Two comparisons, each with onnxruntime's optimisation off (the file as written) and on (integer kernels):
*step by step*, every integer tensor is recomputed by the model from the file's own inputs to that step, and may differ
by `MAX_STEPS` of its scale (the outputs, recomputed from the last integers, by `MAX_OUTPUT`); and *end to end*, where a
difference of one step early on grows from layer to layer: it is reported, and bounded by `MAX_MEAN_OUTPUT` only to
catch one-sided errors.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch import fx

from compress.artifacts import Parity
from compress.errors import ParityError
from compress.export.qdq import Exported, Parameters
from compress.graph.modules import recurrent_output, recurrent_state
from compress.measure.runtime import Session
from compress.quant.pact import PACT

MAX_STEPS = 1.0
"""Kernels add and rescale in another order than PyTorch, so a value in the middle of two steps may fall either way."""
MAX_OUTPUT = 1e-3
"""Largest difference of an output from the model's on the file's last integers, over the largest output where that is
above 1: the float arithmetic is the same, but for its order."""
MAX_MEAN_RECURRENT = 0.02
"""Mean absolute difference of what an LSTM computes in integers from what it computes in float of the same input, over
the largest value where that is above 1; onnxruntime rounds its input and its states to 8 bits by each call's range."""
MAX_MEAN_OUTPUT = 0.05
"""Mean absolute difference of the outputs, over the largest of them where that is above 1 (they are no probabilities):
differences of one step amplify through the layers."""
ADVICE = "On x86 CPUs without VNNI, 8-bit weights saturate in 16-bit sums: use weight_bits: 7 there."


@dataclass(frozen=True)
class Step:
    """The worst difference at one integer tensor, in steps of its scale, and the share of values that differ."""

    name: str
    worst: float
    share: float


@dataclass(frozen=True)
class Replayed:
    """A file's values against the model's, each recomputed from the file's own values before it."""

    steps: list[Step]
    """Integer tensors, in execution order."""
    recurrent: dict[str, float]
    """Mean differences of what LSTMs compute in integers, over their sizes (see MAX_MEAN_RECURRENT)."""
    outputs: dict[str, float]
    """Largest differences of the outputs, over their sizes (see MAX_OUTPUT)."""


def check_parity(module: fx.GraphModule, exported: Exported, images: np.ndarray) -> Parity:
    """Compare file and model on real images [N, 3, H, W]; end to end only the first output.

    Raises:
        ParityError: an integer tensor differs by more than one step of its scale, or an output by more than MAX_OUTPUT
            (end to end by more than MAX_MEAN_OUTPUT on average); the message names the first tensor that does.
    """
    with torch.no_grad():
        results = module(torch.from_numpy(images))
    wanted = (results[0] if isinstance(results, tuple) else results).cpu().numpy()
    plain = Session(exported.model, optimise=False).run(images)
    optimised = Session(exported.model).run(images)
    steps: dict[bool, list[Step]] = {}
    for optimise in (False, True):
        replayed = _replay(module, exported, images, optimise)
        steps[optimise] = replayed.steps
        _require_steps(replayed.steps, optimise)
        _require_recurrent(replayed.recurrent, optimise)
        _require_same_outputs(replayed.outputs, optimise)
    off, on = np.abs(plain - wanted), np.abs(optimised - wanted)
    _require_outputs(float(off.mean()), float(on.mean()), max(1.0, float(np.abs(wanted).max())))
    return Parity(
        max_abs=float(off.max()),
        mean_abs=float(off.mean()),
        max_abs_optimised=float(on.max()),
        mean_abs_optimised=float(on.mean()),
        agreement=float((optimised.argmax(-1) == wanted.argmax(-1)).mean()),
        tolerance=MAX_STEPS,
        count=len(images),
        max_steps=max((step.worst for step in steps[False]), default=0.0),
        max_steps_optimised=max((step.worst for step in steps[True]), default=0.0),
    )


def compare_steps(module: fx.GraphModule, exported: Exported, images: np.ndarray, *, optimise: bool) -> list[Step]:
    """Recompute each integer tensor from the file's own previous ones, in execution order."""
    return _replay(module, exported, images, optimise).steps


def _replay(module: fx.GraphModule, exported: Exported, images: np.ndarray, optimise: bool) -> Replayed:
    probe = onnx.ModelProto()
    probe.CopyFrom(exported.model)
    outputs = [output.name for output in probe.graph.output]
    for name, _ in exported.integers.values():
        probe.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    for name in set(exported.approximate.values()) - set(outputs):
        probe.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    values = Session(probe, optimise=optimise).run_all(images)
    replay = _Replay(
        module,
        {value: (values[name], found) for value, (name, found) in exported.integers.items()},
        {value: values[name] for value, name in exported.approximate.items()},
    )
    with torch.no_grad():
        results = replay.run(torch.from_numpy(images))
    differences = {}
    for name, result in zip(outputs, results if isinstance(results, tuple) else (results,), strict=True):
        expected = result.cpu().numpy()
        differences[name] = float(np.abs(values[name] - expected).max() / max(1.0, np.abs(expected).max()))
    return Replayed(replay.steps, replay.recurrent, differences)


class _Replay(fx.Interpreter):
    """Runs the model, and after each quantiser or integer LSTM goes on with the file's value instead of its own."""

    def __init__(
        self,
        module: fx.GraphModule,
        values: dict[str, tuple[np.ndarray, Parameters]],
        approximate: dict[str, np.ndarray],
    ) -> None:
        super().__init__(module)
        self.submodules = dict(module.named_modules())
        self.values = values
        self.approximate = approximate
        self.steps: list[Step] = []
        self.recurrent: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Compute a node; the result of a quantiser or LSTM is compared with the file's and replaced by it."""
        result = super().run_node(n)
        if n.target in (recurrent_output, recurrent_state) and n.meta["onnx"] in self.approximate:
            found_here = torch.from_numpy(self.approximate[n.meta["onnx"]])
            difference = (result - found_here).abs().mean() / max(1.0, float(result.abs().max()))
            self.recurrent[n.meta["onnx"]] = float(difference)
            return found_here
        if n.op != "call_module" or not isinstance(self.submodules[str(n.target)], PACT):
            return result
        integers, found = self.values[n.meta["onnx"]]
        theirs = (torch.from_numpy(integers.astype(np.float32)) - found.zero_point) * found.scale
        difference = (result - theirs).abs() / found.scale
        self.steps.append(Step(n.meta["onnx"], float(difference.max()), float((difference > 0.5).float().mean())))
        return theirs


def _require_steps(steps: list[Step], optimise: bool) -> None:
    wrong = [step for step in steps if step.worst > MAX_STEPS + 0.01]
    if wrong:
        first = wrong[0]
        raise ParityError(
            f"the int8 file differs from the trained model at {first.name!r} by {first.worst:.1f} steps "
            f"(allowed: {MAX_STEPS:g}), onnxruntime's optimisation {'on' if optimise else 'off'}; "
            f"{len(wrong)} of {len(steps)} tensors differ so.{f' {ADVICE}' if optimise else ''}"
        )


def _require_recurrent(differences: dict[str, float], optimise: bool) -> None:
    for name, difference in differences.items():
        if not difference <= MAX_MEAN_RECURRENT:
            raise ParityError(
                f"the LSTM {name!r} in integers differs by {difference:.3f} on average from what the trained model "
                f"makes of the file's own integers (allowed: {MAX_MEAN_RECURRENT:g}), onnxruntime's optimisation "
                f"{'on' if optimise else 'off'}. Use recurrent: weights."
            )


def _require_same_outputs(outputs: dict[str, float], optimise: bool) -> None:
    for name, difference in outputs.items():
        if not difference <= MAX_OUTPUT:
            raise ParityError(
                f"the int8 file's output {name!r} differs by {difference:.3g} from what the trained model makes of the "
                f"file's own integers (allowed: {MAX_OUTPUT:g}), "
                f"onnxruntime's optimisation {'on' if optimise else 'off'}.{f' {ADVICE}' if optimise else ''}"
            )


def _require_outputs(off: float, on: float, largest: float) -> None:
    allowed = MAX_MEAN_OUTPUT * largest
    if max(off, on) > allowed:
        raise ParityError(
            f"the int8 file's outputs differ from the trained model's by {off:.3f} (optimisation off) and {on:.3f} "
            f"(on) on average; allowed: {allowed:.3f}.{f' {ADVICE}' if off <= allowed else ''}"
        )
