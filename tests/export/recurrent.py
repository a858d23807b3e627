"""Small CRNNs of every shape of recurrent layer, and an LSTM in integers as numpy computes it."""

from functools import cache

import numpy as np
import onnx
import torch
from torch import Tensor, fx, nn

from compress.export import Exported, export_int8
from compress.export.recurrent_forms import RecurrentForm
from compress.graph import from_torch, to_torch
from compress.graph.lowering import lower_for_int8
from compress.quant import calibrate, prepare_qat
from tests.quant import nets

UNITS = 12
CASES = {
    f"{kind.__name__.lower()}{layers}{'_both' if both else ''}": (kind, layers, both)
    for kind in (nn.LSTM, nn.GRU)
    for layers in (1, 2)
    for both in (False, True)
}
LSTMS = [name for name in CASES if name.startswith("lstm")]
GRUS = [name for name in CASES if name.startswith("gru")]


class Crnn(nn.Module):
    """A convolution over the height, recurrent layers, logits [N, T, K]; with `states` the last ones, too."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU], layers: int, both: bool, states: bool) -> None:
        super().__init__()
        self.stem, self.conv = nets.stem(), nn.Conv2d(8, 10, (8, 1))
        self.rnn = kind(10, UNITS, layers, bidirectional=both)
        self.fc, self.states = nn.Linear(UNITS * (2 if both else 1), 7), states

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        steps = torch.relu(self.conv(self.stem(x))).mean(2).permute(2, 0, 1)
        y, last = self.rnn(steps)
        y = torch.softmax(self.fc(y), 2).permute(1, 0, 2)
        if not self.states:
            return y
        return (y, *last) if isinstance(last, tuple) else (y, last)


@cache
def _template(name: str, states: bool) -> bytes:
    kind, layers, both = CASES[name]
    network = nets.initialise(Crnn(kind, layers, both, states))
    return lower_for_int8(from_torch(network, nets.images(1))).SerializeToString()


def template(name: str, *, states: bool = False) -> onnx.ModelProto:
    """One of CASES as a lowered model, of any batch and width."""
    return onnx.load_from_string(_template(name, states))


@cache
def prepared(name: str, *, states: bool = False) -> fx.GraphModule:
    """The same ready to export, calibrated; made once, to be looked at only."""
    module = prepare_qat(to_torch(template(name, states=states)), weight_bits=7)
    calibrate(module, [nets.images().numpy()])
    return module


@cache
def export(name: str, form: RecurrentForm, *, states: bool = False) -> Exported:
    """Its file; made once, to be looked at only."""
    module = prepared(name, states=states)
    return export_int8(module, template(name, states=states), recurrent=form, weight_bits=7)


def lstm_in_integers(
    x: np.ndarray, w: np.ndarray, w_scale: np.ndarray, r: np.ndarray, r_scale: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """One direction of an LSTM with int8 weights, its input and each step's state rounded to uint8 as they come.

    Args:
        x: [T, N, I].
        w: int8 [I, 4H], its gates in ONNX's order i, o, f, c.
        w_scale: [4H].
        r: int8 [H, 4H].
        r_scale: [4H].
        b: [8H], of the input's product and of the state's.

    Returns:
        [T, N, H].

    Source: onnxruntime's documentation of DynamicQuantizeLSTM, and ONNX's of LSTM and DynamicQuantizeLinear.
    """
    steps, batch, _ = x.shape
    units = r.shape[0]
    gates = (_product(x.reshape(steps * batch, -1), w, w_scale) + b[: 4 * units] + b[4 * units :]).reshape(
        steps, batch, -1
    )
    state, cell, made = np.zeros((batch, units)), np.zeros((batch, units)), []
    for step in range(steps):
        i, o, f, c = np.split(gates[step] + _product(state, r, r_scale), 4, axis=1)
        cell = _sigmoid(f) * cell + _sigmoid(i) * np.tanh(c)
        state = _sigmoid(o) * np.tanh(cell)
        made.append(state)
    return np.stack(made)


def _product(x: np.ndarray, weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """x [M, K] rounded to uint8 over its range, zero included, times integers [K, O] of these steps [O]."""
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    step = (high - low) / 255 if high > low else 1.0
    zero = round(-low / step)
    integers = np.clip(np.rint(x / step) + zero, 0, 255) - zero
    return (integers @ weight.astype(np.float64)) * (step * scale)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
