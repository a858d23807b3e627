"""What PP-OCR's first two compressions of its detector are worth: narrower pyramid, no squeeze-and-excite.

    python -m benchmarks.studies.detector_forms
    python -m benchmarks.studies.detector_forms --side 960 --rounds 50

The networks are `compress.zoo.detector`'s as they are exported (without the threshold branch), with weights at random:
parameters, multiply-adds, bytes and time do not depend on them. What each form reads, trained alike, is what
`scripts/train_detector.py --inner-channels N [--se]` tells. The forms take turns, so that a slow spell hits them all;
one thread.
"""

import argparse
import sys
from functools import partial

import numpy as np
import onnx
import torch

from compress.errors import CompressError
from compress.graph import from_torch
from compress.measure.cost import model_cost
from compress.measure.latency import time_interleaved
from compress.measure.machine import machine_info
from compress.measure.session import Session
from compress.zoo.detector import build_detector

FORMS = {"256 inner channels, SE": (256, True), "96 inner channels, SE": (96, True), "96, without SE": (96, False)}
WARMUP = 2


def main() -> None:
    options = parse_arguments()
    machine, shape = machine_info(), (3, options.side, options.side)
    flags, runtime = ", ".join(machine.flags), machine.versions["onnxruntime"]
    print(f"{machine.cpu} ({flags}), onnxruntime {runtime}, 1 thread, 3x{options.side}x{options.side}.\n")
    print("| form | params | MACs (M) | bytes | ms | p10 to p90 |\n|---|---:|---:|---:|---:|---|")
    models = {name: make(*form) for name, form in FORMS.items()}
    image = np.random.default_rng(0).standard_normal((1, *shape), dtype=np.float32)
    calls = {name: partial(Session(model).run, image) for name, model in models.items()}
    for call in calls.values():
        for _ in range(WARMUP):
            call()
    times = time_interleaved(calls, rounds=options.rounds)
    for name, model in models.items():
        cost, (low, middle, high) = model_cost(model, shape, model.ByteSize()), np.percentile(times[name], (10, 50, 90))
        figures = f"{cost.params:,} | {cost.macs / 1e6:,.0f} | {cost.size_bytes:,}"
        print(f"| {name} | {figures} | {middle:.1f} | {low:.1f} to {high:.1f} |")


def make(inner_channels: int, se: bool) -> onnx.ModelProto:
    """One form as an exported file holds it."""
    torch.manual_seed(0)
    return from_torch(build_detector(inner_channels=inner_channels, se=se), torch.zeros(1, 3, 64, 64))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=640, help="of the input, a multiple of 32 (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=20, help="timed rounds (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except CompressError as error:
        sys.exit(f"Error: {error}")
