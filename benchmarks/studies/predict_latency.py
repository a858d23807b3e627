"""Compare the time that a model's operators predict with what the whole model takes.

    python -m benchmarks.studies.predict_latency model.onnx --input 3,48,192
    python -m benchmarks.studies.predict_latency model.onnx --input 3,48,192 --int8 int8.onnx --slowest 10

The prediction is what `compress prune --target latency=...` goes by: each operator alone, from the table of this
machine (timed now where it does not hold it), and their sum. Measured is the canonical model, and in turn with it the
int8 file that was made of it, if one is given. The prediction is of a machine that does nothing else, so on a busy one
it is nearer to the 10th percentile than to the median. One thread. With `--slowest`, the operators that take longest.
"""

import argparse
from pathlib import Path

import onnx

from compress import pipeline
from compress.measure.latency import measure_latency
from compress.measure.latency_table import LatencyTable, key_of
from compress.measure.machine import machine_info
from compress.measure.network_operators import places_of, predicted_ms, with_precision
from compress.measure.operator_times import Precision

Shape = tuple[int, int, int]


def main() -> None:
    options = parse_arguments()
    machine = machine_info()
    print(f"{machine.cpu} ({', '.join(machine.flags)}), onnxruntime {machine.versions['onnxruntime']}, 1 thread.\n")
    model, table = pipeline.open_model(str(options.model), None, options.input), LatencyTable()
    for line in compare(model, options, table):
        print(line, flush=True)
    table.save()
    print(f"\nTimed {table.measured} operators in {table.measuring_s:.1f} s; {table.path} keeps them.")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a float model")
    parser.add_argument("--input", type=shape_of, required=True, metavar="C,H,W", help="size of an image")
    parser.add_argument("--int8", type=Path, help="the int8 file that was made of it")
    parser.add_argument("--rounds", type=int, default=50, help="timed passes of each file; default 50")
    parser.add_argument("--slowest", type=int, default=0, help="how many operators to list; default none")
    return parser.parse_args()


def shape_of(text: str) -> Shape:
    """Read `3,48,192`."""
    channels, height, width = map(int, text.split(","))
    return channels, height, width


def compare(model: onnx.ModelProto, options: argparse.Namespace, table: LatencyTable) -> list[str]:
    """The lines of the table: predicted, measured, and their ratio."""
    files: dict[str, Path | bytes] = {"float32": model.SerializeToString()}
    if options.int8:
        files["int8"] = options.int8
    measured = measure_latency(files, options.input, rounds=options.rounds)
    precisions: tuple[Precision, ...] = ("float32", "int8")
    lines = [
        "| kernels | predicted ms | measured ms [p10-p90] | predicted / median | predicted / p10 |",
        "|---|---|---|---|---|",
    ]
    for precision in precisions[: len(files)]:
        predicted, found = predicted_ms(places_of(model, options.input), table, precision), measured[precision]
        spread = f"{found.median_ms:.2f} [{found.p10_ms:.2f}-{found.p90_ms:.2f}]"
        ratios = f"{predicted / found.median_ms:.2f} | {predicted / found.p10_ms:.2f}"
        lines.append(f"| {precision} | {predicted:.2f} | {spread} | {ratios} |")
        lines += slowest(model, options.input, table, precision, options.slowest)
    return lines


def slowest(model: onnx.ModelProto, shape: Shape, table: LatencyTable, precision: Precision, count: int) -> list[str]:
    """The operators that take longest, each with its milliseconds."""
    operators = [with_precision(place.operator, precision) for place in places_of(model, shape).values()]
    times = sorted(((table.time(operator).kernel_ms, key_of(operator)) for operator in operators), reverse=True)
    return [f"    {milliseconds:8.3f}  {key}" for milliseconds, key in times[:count]]


if __name__ == "__main__":
    main()
