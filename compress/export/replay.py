"""Recompute every integer tensor of an exported file by the network it came from, each from the file's own inputs.

The file runs once with its integers as further outputs. Then the network runs; behind each quantiser it goes on with
the file's integers, so that every step is judged alone: a difference shows at the tensor where it arises, and nowhere
else. Scales and zero points are the trained network's own: what the file says of them is not believed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, fx, nn

from compress.export.qdq import Exported
from compress.graph.modules import recurrent_output, recurrent_state
from compress.measure.session import Session
from compress.quant.functional import UINT8, quantize
from compress.quant.int8_layers import GATE_SCALE, IntegerHardSwish
from compress.quant.pact import PACT
from compress.quant.recurrent_weights import lstm_in_integers

GATE_TIE = 1e-3
"""Steps around the middle of two within which a hard-swish's inner gate may fall either way: float arithmetic in
another order moves a value of up to 255 by some 1e-5."""
OUTPUT_FLOOR = 0.01
"""Outputs smaller than this throughout are compared to it: sigmoids are approximations, good to some 1e-7."""
TIE = 0.002
"""Values as near as this to the middle of two steps, in steps, may fall either way, all to one side: the gates of a
network whose channels are silent are 0.5, which is 127.5 steps. They are left out of share and mean."""
CROWDED, PLACES = 0.01, 4096
"""From this share of differing values on, each value of a channel counts once, told apart to so many places in a step:
blank paper is one value in half of all pixels, and falls wholly to one side."""


@dataclass(frozen=True)
class Step:
    """What the file's integers at one tensor are to the network's, computed from the same inputs."""

    name: str
    count: int
    """Number of values."""
    worst: float
    """Largest difference, in steps of the scale."""
    share: float
    """Share of values that differ."""
    bias: float
    """Mean of the file's values minus the network's, in steps."""
    excess: float
    """Largest distance of a value from the network's before it was rounded, beyond the half step that rounding is."""


@dataclass(frozen=True)
class Replayed:
    """A file's values against the network's, each recomputed from the file's own values before it."""

    steps: list[Step]
    """Integer tensors, in execution order."""
    coarseness: dict[str, float]
    """LSTM in integers -> mean difference from the same in float, over the largest value where that is above 1."""
    kernels: dict[str, float]
    """LSTM in integers -> mean difference from the network's own integers, over the mean size."""
    outputs: dict[str, float]
    """Output -> largest difference, over the largest value (at least OUTPUT_FLOOR)."""


def replay(module: fx.GraphModule, exported: Exported, images: np.ndarray, *, optimise: bool) -> Replayed:
    """Compare file and network on images [N, 3, H, W], tensor by tensor.

    Args:
        module: the trained network; LSTMs that the file computes in integers have their weights rounded already.
        exported: its file.
        images: what both compute.
        optimise: let onnxruntime use its integer kernels; else the file runs as it is written.

    Raises:
        ModelError: onnxruntime cannot load or run the file.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(exported.model)
    outputs = [output.name for output in probe.graph.output]
    for name, _ in exported.integers.values():
        probe.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    for name in set(exported.approximate.values()) - set(outputs):
        probe.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    values = Session(probe, optimise=optimise).run_all(images)
    player = _Player(
        module,
        {value: values[name] for value, (name, _) in exported.integers.items()},
        {value: values[name] for value, name in exported.approximate.items()},
    )
    with torch.no_grad():
        results = player.run(torch.from_numpy(images))
    results = results if isinstance(results, tuple) else (results,)
    differences = {
        name: relative_difference(values[name], result.cpu().numpy())
        for name, result in zip(outputs, results, strict=True)
    }
    return Replayed(player.steps, player.coarseness, player.kernels, differences)


def relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over the largest expected value (at least OUTPUT_FLOOR); infinite where shapes differ.

    >>> relative_difference(np.array([2.0, 4.2]), np.array([2.0, 4.0]))
    0.05
    """
    if found.shape != expected.shape:
        return float("inf")
    largest = max(OUTPUT_FLOOR, float(np.abs(expected).max(initial=0.0)))
    return round(float(np.abs(found - expected).max(initial=0.0)) / largest, 12)


def compare_integers(name: str, integers: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, slack: Tensor) -> Step:
    """One tensor's integers against the value that the network rounds to them.

    Args:
        name: of the tensor.
        integers: the file's, any shape, as float32.
        x: the network's value before it is rounded, of the same shape.
        scale: the network's, one element.
        zero_point: the network's, one element.
        slack: how far x may lie elsewhere for reasons of its own, in steps; broadcasts.
    """
    exact = (x / scale + zero_point).clamp(*UINT8)
    difference = integers - quantize(x, scale, zero_point)
    beyond = (integers - exact).abs() - 0.5 - slack
    counted = difference.masked_fill((exact - exact.floor() - 0.5).abs() <= TIE, 0.0).double()
    share, bias = float((counted != 0).double().mean()), float(counted.mean())
    if share >= CROWDED:
        once = _each_value_once(exact)
        share = min(share, float(((counted != 0) * once).sum()))
        bias = min(bias, float((counted * once).sum()), key=abs)
    worst, excess = float(difference.abs().max()), float(beyond.max().clamp_min(0.0))
    return Step(name, difference.numel(), worst, share, bias, excess)


def _each_value_once(steps: Tensor) -> Tensor:
    """Weights [N, C, ...] that sum to 1, all values of a channel that are the same together as much as any other."""
    channels = torch.arange(steps.shape[1] if steps.ndim > 1 else 1).reshape(-1, *[1] * max(0, steps.ndim - 2))
    places = torch.round(steps.double() * PLACES) + channels * (PLACES * 2.0 * UINT8[1])
    _, which, counts = torch.unique(places, return_inverse=True, return_counts=True)
    return 1.0 / (counts[which].double() * len(counts))


class _Player(fx.Interpreter):
    """Runs the network, and after each quantiser or integer LSTM goes on with the file's value instead of its own."""

    def __init__(self, module: fx.GraphModule, integers: dict[str, np.ndarray], approximate: dict[str, np.ndarray]):
        super().__init__(module)
        self.submodules = dict(module.named_modules())
        self.integers = integers
        self.approximate = approximate
        self.rounded: dict[fx.Node, Any] = {}
        """LSTM -> what it computes in integers."""
        self.slack: dict[fx.Node, Tensor] = {}
        """Hard-swish -> how far a tie of its gate moves each of its values."""
        self.steps: list[Step] = []
        self.coarseness: dict[str, float] = {}
        self.kernels: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Compute a node; the result of a quantiser or LSTM is compared with the file's and replaced by it."""
        result = super().run_node(n)
        if n.target in (recurrent_output, recurrent_state) and n.meta["onnx"] in self.approximate:
            return self._compare_lstm(n, result)
        if n.op != "call_module":
            return result
        layer, given = self.submodules[str(n.target)], self.fetch_args_kwargs_from_env(n)[0]
        if isinstance(layer, nn.LSTM) and any(user.meta["onnx"] in self.approximate for user in n.users):
            self.rounded[n] = lstm_in_integers(layer, given[0])
        elif isinstance(layer, IntegerHardSwish):
            self.slack[n] = gate_slack(given[0])
        elif isinstance(layer, PACT):
            return self._compare_integers(n, layer, given[0])
        return result

    def _compare_integers(self, n: fx.Node, quantiser: PACT, x: Tensor) -> Tensor:
        scale, zero_point = quantiser.scale_and_zero_point()
        theirs = torch.from_numpy(self.integers[n.meta["onnx"]].astype(np.float32))
        source = n.args[0]
        assert isinstance(source, fx.Node)
        slack = self.slack.pop(source, torch.zeros(())) / scale
        self.steps.append(compare_integers(n.meta["onnx"], theirs, x, scale, zero_point, slack))
        return (theirs - zero_point) * scale

    def _compare_lstm(self, n: fx.Node, in_float: Tensor) -> Tensor:
        name, source = n.meta["onnx"], n.args[0]
        assert isinstance(source, fx.Node)
        theirs = torch.from_numpy(self.approximate[name])
        ours = n.target(self.rounded[source], *n.args[1:])  # type: ignore[operator]
        self.coarseness[name] = float((in_float - theirs).abs().mean() / max(1.0, float(in_float.abs().max())))
        self.kernels[name] = float((ours - theirs).abs().mean() / ours.abs().mean().clamp_min(1e-6))
        return theirs


def gate_slack(x: Tensor) -> Tensor:
    """How far each value of an integer hard-swish lies elsewhere if its gate, in the middle of two steps, falls off.

    A tensor has 256 values at most, so that one of them in such a middle can be many values of the tensor.

    >>> middle = torch.tensor(100.5 * 6 / 255 - 3)
    >>> gate_slack(torch.stack([middle, middle + 0.01])) * 255
    tensor([0.6353, 0.0000])
    """
    steps = (x + 3.0) / GATE_SCALE
    tie = ((steps - steps.floor() - 0.5).abs() < GATE_TIE) & (steps > 0) & (steps < UINT8[1])
    return torch.where(tie, x.abs() / UINT8[1], torch.zeros_like(x))
