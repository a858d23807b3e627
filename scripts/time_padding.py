"""Time convolutions of uneven channel counts, in float32 and in integers, as they are and padded to a multiple of 16.

    python scripts/time_padding.py
    python scripts/time_padding.py --rounds 9

Whether padding channels with zeros pays depends on the CPU's kernels: `quantize --optimize latency` predicts it from
times like these, of all operators of a network, and then times the whole file. The forms of an operator take turns, so
that a slow spell hits them all; one thread. Shown: machine, and for each operator the median in milliseconds of
float32 and of int8, with the lowest and the highest, and the ratio of padded to unpadded.
"""

import argparse
from dataclasses import dataclass

import numpy as np

from compress.measure.machine import machine_info
from compress.measure.operator_times import Operator, Precision, measure_operator

BLOCK = 16


@dataclass(frozen=True)
class Convolution:
    """A convolution of stride 1 that keeps the image's size."""

    where: str
    kernel: int
    inputs: int
    outputs: int
    size: tuple[int, int]
    """Height and width."""
    depthwise: bool = False

    def padded(self) -> "Convolution":
        """With channels of zeros up to a multiple of 16."""
        inputs, outputs = (-(-channels // BLOCK) * BLOCK for channels in (self.inputs, self.outputs))
        return Convolution(self.where, self.kernel, inputs, outputs, self.size, self.depthwise)

    def operator(self, precision: Precision) -> Operator:
        """As the table of operators' times has it."""
        weight = (self.outputs, 1 if self.depthwise else self.inputs, self.kernel, self.kernel)
        attributes = {"group": self.inputs} if self.depthwise else {}
        if self.kernel > 1:
            attributes["pads"] = (self.kernel // 2,) * 4
        return Operator(
            "Conv", ((1, self.inputs, *self.size),), weight, tuple(sorted(attributes.items())), "", precision
        )

    def __str__(self) -> str:
        kind = f"depthwise {self.inputs}" if self.depthwise else f"{self.inputs} -> {self.outputs}"
        return f"{self.kernel}x{self.kernel}, {kind}, {self.size[0]}x{self.size[1]}"


CONVOLUTIONS = (
    Convolution("recogniser", 5, 120, 120, (4, 160), depthwise=True),
    Convolution("recogniser", 1, 24, 120, (4, 160)),
    Convolution("recogniser", 1, 120, 24, (4, 160)),
    Convolution("classifier", 5, 88, 88, (6, 96), depthwise=True),
    Convolution("classifier", 5, 200, 200, (3, 96), depthwise=True),
    Convolution("detector", 3, 40, 40, (160, 160), depthwise=True),
    Convolution("detector", 3, 104, 104, (40, 40), depthwise=True),
    Convolution("detector, pruned", 3, 80, 8, (160, 160)),
)
"""As they occur in the PP-OCR nets, in the last case pruned."""


def main() -> None:
    options = parse_arguments()
    machine = machine_info()
    print(f"{machine.cpu} ({', '.join(machine.flags)}), onnxruntime {machine.versions['onnxruntime']}, 1 thread.\n")
    columns = ["in the", "convolution", "float32 ms", "int8 ms", "padded to", "float32 ms", "ratio", "int8 ms", "ratio"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for convolution in CONVOLUTIONS:
        print(row(convolution, options.rounds), flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each operator is timed; default 5")
    return parser.parse_args()


def row(convolution: Convolution, rounds: int) -> str:
    """A table row: medians of so many measurements, in turn."""
    padded = convolution.padded()
    precisions: tuple[Precision, ...] = ("float32", "int8")
    operators = [form.operator(precision) for form in (convolution, padded) for precision in precisions]
    times = np.array([[measure_operator(operator).kernel_ms for operator in operators] for _ in range(rounds)])
    medians = np.median(times, axis=0)
    cells = [
        f"{median:.3f} ({low:.3f} to {high:.3f})"
        for median, low, high in zip(medians, times.min(axis=0), times.max(axis=0), strict=True)
    ]
    size = f"{padded.inputs}" if padded.depthwise else f"{padded.inputs} -> {padded.outputs}"
    return (
        f"| {convolution.where} | {convolution} | {cells[0]} | {cells[1]} | {size} "
        f"| {cells[2]} | {medians[2] / medians[0]:.2f}x | {cells[3]} | {medians[3] / medians[1]:.2f}x |"
    )


if __name__ == "__main__":
    main()
