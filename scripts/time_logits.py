"""Time the last layer of a recogniser, logits and softmax, in the ways an ONNX file can hold it.

    python scripts/time_logits.py
    python scripts/time_logits.py --units 96 --classes 6625 --rounds 200

Why `compress` lets it multiply in integers: a charset of thousands makes it the largest product of the network. The
ways take turns, so that a slow spell hits them all; one thread. Shown: machine, and for each way the median, 10th and
90th percentile in milliseconds, the speed over float, and the bytes of the file.
"""

import argparse
from functools import partial

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compress.artifacts import Machine
from compress.measure.latency import time_interleaved
from compress.measure.machine import machine_info, saturates_int8
from compress.measure.session import Session

WARMUP = 5
MULTIPLY = "p = MatMul(%s, %s)  l = Add(p, b)  y = Softmax<axis = 2>(l)"
WAYS = {
    "float": MULTIPLY % ("x", "w"),
    "int8 weights behind DequantizeLinear": "d = DequantizeLinear<axis = 1>(q, s)  " + MULTIPLY % ("x", "d"),
    "int8 weights behind Cast and Mul": "c = Cast<to = 1>(q)  d = Mul(c, s)  " + MULTIPLY % ("x", "d"),
    "integers": "i = QuantizeLinear(x, xs, xz)  f = DequantizeLinear(i, xs, xz)  "
    "d = DequantizeLinear<axis = 1>(q, s)  " + MULTIPLY % ("f", "d"),
}
"""Name -> graph: x [T, N, I] -> y [T, N, K]; the input comes in float, as an LSTM gives it."""


def main() -> None:
    options = parse_arguments()
    machine = machine_info()
    print(describe(machine))
    print("| units | classes | way | ms | p10 to p90 | over float | KB |\n|---|---|---|---|---|---|---|")
    for classes in options.classes:
        for units in options.units:
            for line in measure(units, classes, options.steps, options.rounds):
                print(line, flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, nargs="+", default=[48, 96], help="inputs of the layer; default 48 96")
    parser.add_argument("--classes", type=int, nargs="+", default=[97, 6625], help="its outputs; default 97 6625")
    parser.add_argument("--steps", type=int, default=80, help="time steps; default 80, of an image 320 wide")
    parser.add_argument("--rounds", type=int, default=100, help="timed rounds; default 100")
    return parser.parse_args()


def describe(machine: Machine) -> str:
    """One line about where this runs."""
    saturates = "; 8-bit products saturate here, so the weights have 7 bits" if saturates_int8(machine) else ""
    flags, runtime = ", ".join(machine.flags), machine.versions["onnxruntime"]
    return f"{machine.cpu} ({flags}), onnxruntime {runtime}, 1 thread{saturates}.\n"


def build(way: str, units: int, classes: int) -> onnx.ModelProto:
    """The layer in one way; the same weights in each: 7 bits, which computes the same on every CPU."""
    generator = np.random.default_rng(0)
    integers = generator.integers(-63, 64, (units, classes)).astype(np.int8)
    scale = (generator.uniform(0.5, 1.0, classes) * 0.1 / 63).astype(np.float32)
    constants = {
        "w": integers * scale,
        "q": integers,
        "s": scale,
        "b": generator.standard_normal(classes).astype(np.float32),
        "xs": np.array(1 / 127, np.float32),
        "xz": np.array(128, np.uint8),
    }
    graph = onnx.parser.parse_graph(f"g (float[T, N, {units}] x) => (float[T, N, {classes}] y) {{ {WAYS[way]} }}")
    read = {name for node in graph.node for name in node.input}
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items() if name in read)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def measure(units: int, classes: int, steps: int, rounds: int) -> list[str]:
    """A table row for each way."""
    x = np.random.default_rng(1).uniform(-1, 1, (steps, 1, units)).astype(np.float32)
    models = {way: build(way, units, classes) for way in WAYS}
    calls = {way: partial(Session(model).run, x) for way, model in models.items()}
    for call in calls.values():
        for _ in range(WARMUP):
            call()
    times = time_interleaved(calls, rounds=rounds)
    medians = {way: float(np.median(values)) for way, values in times.items()}
    return [
        f"| {units} | {classes} | {way} | {medians[way]:.3f} "
        f"| {np.percentile(times[way], 10):.3f} to {np.percentile(times[way], 90):.3f} "
        f"| {medians['float'] / medians[way]:.2f}x | {models[way].ByteSize() / 1000:.1f} |"
        for way in WAYS
    ]


if __name__ == "__main__":
    main()
