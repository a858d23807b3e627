"""Measure the int8 files of other tools beside a recipe's own: metric, bytes, MACs and latency, in one run and table.

    python scripts/compare_tools.py recipes/ppocr_rec_en.yaml --ours runs/ppocr_rec_en --out runs/compare
    python scripts/compare_tools.py recipes/ppocr_rec_en.yaml --set quantize.calibration=16 --out runs/quick

The other tools are onnxruntime's quantize_static and NNCF's post-training quantisation (`pip install '.[compare]'`;
without it its rows say so). Each gets the deployed file as it is, and once more in the canonical form that this
project works on, with the same training images to calibrate with, and weights that cannot saturate where this CPU
would. Writes comparison.json, comparison.md and the files themselves.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer
from peers import CANONICAL, DEPLOYED, input_files, quantize_nncf, quiet

from compress import artifacts
from compress.artifacts import Latency, Machine, StageResult
from compress.cli.progress import progress
from compress.errors import CompressError, ModelError
from compress.graph import deployed_bytes, read_model
from compress.measure.cost import model_cost
from compress.measure.latency import measure_latency
from compress.measure.machine import machine_info, saturates_int8
from compress.measure.session import quantize_static_minmax, quantize_static_percentile
from compress.pipeline import score_model
from compress.pipeline.tasks import recipe_task
from compress.progress import Progress
from compress.recipe import QuantizeStep, Recipe, load_recipe
from compress.report import tables
from compress.tasks.base import Task

OURS = {"finetuned.onnx": "ours, float", "int8.onnx": "ours, int8"}
CALIBRATION = 256
"""Images, unless the recipe says."""
PERCENTILE_MAX, PERCENTILE_PIXELS = 64, 16 * 640 * 640
"""Images for ranges by percentile, fewer if they are large: onnxruntime keeps all inner values in memory (64 of 640x640
pixels took more than 19 GB)."""


@dataclass(frozen=True)
class Comparison:
    """What was measured of each file, in order, and why others were not."""

    command: str
    date: str
    machine: Machine
    calibration: int
    files: tuple[StageResult, ...]
    missing: dict[str, str]
    version: int = artifacts.VERSION


def main() -> int:
    options = parse_arguments()
    recipe = load_recipe(options.recipe, [*options.set, f"out={options.out}"])
    ours = find_ours(options.ours) if options.ours else {}
    with progress("Nothing is kept of an unfinished comparison.") as on_progress:
        comparison = compare(recipe, ours, shlex.join(["python", *sys.argv]), on_progress)
    artifacts.save(comparison, options.out / "comparison.json")
    artifacts.write_atomic(options.out / "comparison.md", render(comparison).encode())
    print(render(comparison))
    for name, reason in comparison.missing.items():
        print(f"{name}: not measured: {reason}", file=sys.stderr)
    return 0


def find_ours(folder: Path) -> dict[str, Path]:
    """The files of a finished run.

    Raises:
        CompressError: one is not there.
    """
    for name in OURS:
        if not (folder / name).is_file():
            raise CompressError(f"--ours: {folder}: has no {name}. Give the folder of a finished `compress run`.")
    return {title: folder / name for name, title in OURS.items()}


def compare(recipe: Recipe, ours: Mapping[str, Path], command: str, on_progress: Progress) -> Comparison:
    """Make the other tools' files, and measure all of them."""
    task = recipe_task(recipe)
    step = recipe.find_step(QuantizeStep)
    images = list(task.calibration_batches(step.calibration if step else CALIBRATION, 1))
    files = input_files(recipe, task, recipe.out)
    missing: dict[str, str] = {}
    jobs = tool_jobs(files, saturates_int8(machine_info()))
    for done, (name, make) in enumerate(jobs.items()):
        on_progress(done, len(jobs), name)
        file = recipe.out / f"{name.replace(' ', '_').replace(',', '')}.onnx"
        try:
            make(images, file)
        except ModelError as error:
            missing[name] = str(error)
        else:
            files[name] = file
    files.update(ours)
    return Comparison(
        command=command,
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=with_nncf(machine_info()),
        calibration=len(images),
        files=measure(recipe, task, files, on_progress),
        missing=missing,
    )


def measure(recipe: Recipe, task: Task, files: Mapping[str, Path], on_progress: Progress) -> tuple[StageResult, ...]:
    """Score every file, and time them all in turn."""
    settings = recipe.compare
    latencies = measure_latency(
        files, task.input_shape, threads=settings.threads, rounds=settings.rounds, on_progress=on_progress
    )
    results = []
    for done, (name, file) in enumerate(files.items(), 1):
        score = score_model(file, task, recipe.threads)
        on_progress(done, len(files), f"{name}: {score.name} {score.metric:.4f}")
        cost = model_cost(read_model(file), task.input_shape, deployed_bytes(file))
        results.append(StageResult(name, file.name, cost, score, latencies[name]))
    return tuple(results)


# --- the files ---------------------------------------------------------------------------------------------------


Make = Callable[[Sequence[np.ndarray], Path], None]
"""(images to calibrate with, file to write); raises ModelError where the tool cannot."""


def tool_jobs(files: Mapping[str, Path], saturates: bool) -> dict[str, Make]:
    """How each of the other tools' files is made; `saturates`: 8-bit weights overflow on this CPU."""

    def onnxruntime_int8(source: Path) -> Make:
        return lambda images, file: quantize_static_minmax(source, images, file, reduce_range=saturates)

    def onnxruntime_percentile(source: Path) -> Make:
        def make(images: Sequence[np.ndarray], file: Path) -> None:
            with quiet():
                quantize_static_percentile(source, images[: percentile_count(images)], file, reduce_range=saturates)

        return make

    def nncf_int8(source: Path, half_range: bool = False) -> Make:
        return lambda images, file: quantize_nncf(source, images, file, half_range=half_range)

    jobs = {
        "onnxruntime int8": onnxruntime_int8(files[DEPLOYED]),
        f"onnxruntime int8, {CANONICAL}": onnxruntime_int8(files[CANONICAL]),
        f"onnxruntime int8, {CANONICAL}, percentile": onnxruntime_percentile(files[CANONICAL]),
        "NNCF int8": nncf_int8(files[DEPLOYED]),
        f"NNCF int8, {CANONICAL}": nncf_int8(files[CANONICAL]),
    }
    if saturates:
        jobs[f"NNCF int8, {CANONICAL}, 7-bit weights"] = nncf_int8(files[CANONICAL], half_range=True)
    return jobs


def percentile_count(images: Sequence[np.ndarray]) -> int:
    """How many of the images [1, 3, H, W] to take for ranges by percentile."""
    largest = max(image.shape[2] * image.shape[3] for image in images)
    return max(1, min(PERCENTILE_MAX, PERCENTILE_PIXELS // largest, len(images)))


def with_nncf(machine: Machine) -> Machine:
    """The machine, with NNCF's version among the libraries if it is installed."""
    try:
        return dataclasses.replace(machine, versions={**machine.versions, "nncf": importlib.metadata.version("nncf")})
    except importlib.metadata.PackageNotFoundError:
        return machine


# --- the table ---------------------------------------------------------------------------------------------------


def render(comparison: Comparison) -> str:
    """Every file as a line of Markdown, with a caption that says how it was measured."""
    first = comparison.files[0]
    details = [name for name in first.score.details if not name.startswith("count_")]
    header = ["file", first.score.name, *details, "KB", "MACs", "ms [p10-p90]", "speed"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    lines += [cells(result, details) for result in comparison.files]
    lines += [[name, "not measured", *[tables.NONE] * (len(header) - 2)] for name in comparison.missing]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n" + "\n".join(f"- {line}" for line in caption(comparison)) + "\n"


def caption(comparison: Comparison) -> list[str]:
    """What the figures are, and how and where they were measured."""
    first = comparison.files[0]
    assert first.latency is not None
    shape = "x".join(map(str, first.cost.input_shape))
    images, runs, threads = first.score.count, first.latency.runs, first.latency.threads
    how = "7-bit weights, since 8 bits saturate on this CPU" if saturates_int8(comparison.machine) else "8-bit weights"
    lines = [
        f"command: `{comparison.command}`",
        f"{comparison.date}; {tables.machine_line(comparison.machine)}",
        f"{first.score.name} on {images} validation images; KB: 1000 bytes; MACs of one {shape} image; ms: median of "
        f"one image over {runs} runs, {threads} thread(s), the files interleaved; speed: over the deployed file.",
        f"onnxruntime: quantize_static, MinMax, per channel, {how}. NNCF: post-training quantisation with its defaults "
        "and the full bias correction (fast_bias_correction=False); files below opset 13 it quantises per tensor. "
        f"Both calibrate on the same {comparison.calibration} training images (percentiles, which take much memory, on "
        f"at most {PERCENTILE_MAX} of them), and train nothing.",
    ]
    if any(result.stage in OURS.values() for result in comparison.files):
        lines.append("ours: pruned, and trained on the recipe's training data; the validation images chose its epoch.")
    return lines + [f"{name}: not measured: {reason}" for name, reason in comparison.missing.items()]


def cells(result: StageResult, details: Sequence[str]) -> list[str]:
    """A file's line."""
    latency: Latency | None = result.latency
    assert latency is not None
    assert latency.speedup is not None
    return [
        result.stage,
        f"{result.score.metric:.4f}",
        *(f"{result.score.details[name]:.4f}" for name in details),
        tables.kilobytes(result.cost.size_bytes),
        tables.count(result.cost.macs),
        tables.milliseconds(latency),
        f"{latency.speedup:.2f}x",
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="names model, task and data, and how many images calibrate")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe")
    parser.add_argument("--ours", type=Path, metavar="FOLDER", help="a finished run of the recipe")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CompressError as error:
        sys.exit(f"Error: {error}")
    except typer.Exit as stop:  # interrupted
        sys.exit(stop.exit_code)
