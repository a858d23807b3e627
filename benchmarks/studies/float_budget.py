"""What a float budget brings: int8 files of a recipe's model, calibrated only, beside as many multiply-adds at random.

    python -m benchmarks.studies.float_budget recipes/ppocr_rec_en.yaml --optimize size --out runs/budget_rec

Each file is that of `quantize: {epochs: 0, float_budget: B}`; with `--random N` N more for each budget leave layers in
float that are drawn (seeds 0 to N - 1) until no other fits. All are scored on the validation images and timed in turn,
one thread, against the canonical float model. LSTMs are in the form `weights`, and parity is not checked: what is drawn
may leave a network whose outputs are too unsure for the check.

With `--rank` no file is made: layers are chosen by what each costs alone in integers, by what each brings alone back in
float, and at random, and the networks (not the files) are scored on 256 training images without labels and on the
validation images.
"""

import argparse
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from benchmarks.studies.inputs import model_and_task
from compress.artifacts import FloatChoice, QuantSensitivity, save
from compress.graph import save_model, to_torch
from compress.measure.cost import layer_positions, macs_at
from compress.measure.latency import measure_latency
from compress.measure.machine import machine_info
from compress.pipeline import score_model
from compress.pipeline.execution import Execution
from compress.pipeline.stages.int8_file import export_form
from compress.pipeline.stages.int8_scan import LayerScan, Scanned, network_predict
from compress.pipeline.stages.placement import Lowered, place
from compress.pipeline.stages.quantize import lower_and_place, train_int8
from compress.quant.layer_scan import RULES, choose_float
from compress.recipe import QuantizeStep, load_recipe
from compress.tasks.base import Task

RANKED = 256
"""Training images that ways to choose are compared on."""


@dataclass(frozen=True)
class Made:
    """An int8 file and what stayed in float in it by choice."""

    name: str
    file: Path
    layers: int
    share: float
    """Of the multiply-adds."""


@dataclass(frozen=True)
class Maker:
    """Makes the files of one model."""

    model: onnx.ModelProto
    task: Task
    step: QuantizeStep
    out: Path

    def plain(self, budget: float | None) -> tuple[Made, QuantSensitivity | None]:
        """As `compress quantize` makes it."""
        name = f"budget {budget:g}" if budget else "no budget"
        step, file = self.step.model_copy(update={"float_budget": budget}), self.out / f"{name.replace(' ', '_')}.onnx"
        lowered = lower_and_place(self.model, self.task, step, self.out / "int8.onnx", training_threads=1)
        (self.out / "int8.placement.json").unlink(missing_ok=True)  # the next one has other layers in float
        return self._write(name, file, step, lowered), lowered.sensitivity

    def drawn(self, scan: QuantSensitivity, seed: int) -> Made:
        """As many multiply-adds of layers that are drawn."""
        layers = draw(scan, seed)
        choice = FloatChoice("drawn", layers, sum(scan.layers[name].macs for name in layers), 1.0)
        lowered = place(self.model, self.step, self.task.input_shape, lambda _: layers)
        lowered = replace(lowered, sensitivity=replace(scan, choices=(choice,)))
        name = f"drawn {scan.float_budget:g}, seed {seed}"
        return self._write(name, self.out / f"{name.replace(' ', '_')}.onnx", self.step, lowered)

    def _write(self, name: str, file: Path, step: QuantizeStep, lowered: Lowered) -> Made:
        qat = train_int8(self.model, lowered, None, self.task, step, Execution(threads=1))
        save_model(export_form(qat, lowered.model, step, "weights").model, file)
        module = to_torch(lowered.model)
        positions = layer_positions(module, self.task.input_shape)
        inside = {layer: positions[layer] for layer in lowered.float_layers}
        return Made(name, file, len(inside), macs_at(module, inside) / macs_at(module, positions))


def draw(scan: QuantSensitivity, seed: int) -> tuple[str, ...]:
    """Layers in random order, each that fits into the scan's budget."""
    names = sorted(scan.layers)
    random.Random(seed).shuffle(names)
    chosen, used = [], 0
    for name in names:
        if used + scan.layers[name].macs <= (scan.float_budget or 0) * scan.macs:
            chosen.append(name)
            used += scan.layers[name].macs
    return tuple(chosen)


def rank(model: onnx.ModelProto, task: Task, step: QuantizeStep, budgets: Sequence[float], draws: int) -> None:
    """Print a table in Markdown: what each way to choose leaves of the network."""
    scan = LayerScan(Scanned(model, task, step, lambda _: (), "divergence"))
    networks, few = scan.networks(), scan.scorer()
    many = LayerScan(Scanned(model, task, step, lambda _: (), "divergence", RANKED)).scorer()
    whole = few(networks.without(())).metric
    alone = {name: 1 - few(networks.alone(name)).metric for name in scan.layers}
    stored = 1 - few(networks.without(scan.layers)).metric
    ways = {
        "alone in integers": {name: drop - stored for name, drop in alone.items()},
        "alone back in float": {name: few(networks.without((name,))).metric - whole for name in scan.layers},
    }
    chosen: dict[str, tuple[str, ...]] = {"nothing in float": (), "all in float": scan.layers}
    for budget in budgets:
        most = budget * scan.whole
        for way, drops in ways.items():
            dear = sum(max(0.0, drop) for drop in drops.values())
            for rule, least in RULES.items():
                chosen[f"{budget:g}: {way}, {rule}"] = choose_float(drops, scan.macs, most, least * dear)
        for seed in range(draws):
            shuffled = random.Random(seed).sample(scan.layers, len(scan.layers))
            worth = {name: scan.macs[name] * (len(shuffled) - place) for place, name in enumerate(shuffled)}
            chosen[f"{budget:g}: at random, seed {seed}"] = choose_float(worth, scan.macs, most)
    print(f"| layers left in float | layers | share of MACs | KL, {RANKED} images | {task.metric_name} |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, layers in chosen.items():
        network = networks.without(layers)
        distance, metric = -math.log(many(network).metric), task.evaluate(network_predict(network)).metric
        share = sum(scan.macs[layer] for layer in layers) / scan.whole
        print(f"| {name} | {len(layers)} | {share:.4f} | {distance:.3f} | {metric:.4f} |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.02, 0.05, 0.1])
    parser.add_argument("--random", type=int, default=3, help="draws for each budget")
    parser.add_argument("--optimize", default="size", choices=("size", "balanced", "latency", "accuracy"))
    parser.add_argument("--rank", action="store_true", help="compare ways to choose, instead of making files")
    parser.add_argument("--out", type=Path, default=Path("runs/float_budget"))
    given = parser.parse_args(arguments)
    recipe = load_recipe(given.recipe)
    given.out.mkdir(parents=True, exist_ok=True)
    model, task = model_and_task(recipe)
    step = QuantizeStep(epochs=0, optimize=given.optimize, distill=0.0)
    if given.rank:
        rank(model, task, step, given.budgets, given.random)
        return
    maker = Maker(model, task, step, given.out)
    files = [maker.plain(None)[0]]
    for budget in given.budgets:
        made, scan = maker.plain(budget)
        assert scan is not None
        save(scan, given.out / f"budget_{budget:g}.json")
        files += [made, *(maker.drawn(scan, seed) for seed in range(given.random))]
    show(model, task, files)


def show(model: onnx.ModelProto, task: Task, files: Sequence[Made]) -> None:
    """Score all files, and time them in turn."""
    whole = "float32, canonical"
    timed = {whole: model.SerializeToString(), **{made.name: made.file.read_bytes() for made in files}}
    found = measure_latency(timed, task.input_shape, rounds=200, budget_s=120.0, baseline=whole)
    machine, score = machine_info(), score_model(model, task, 1)
    print(f"{machine.cpu} ({', '.join(machine.flags)}), onnxruntime {machine.versions['onnxruntime']}, one thread\n")
    print(f"| file | layers | share of MACs | {score.name} (n = {score.count}) | KB | ms | speed |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    print(
        f"| {whole} | | | {score.metric:.4f} | {len(timed[whole]) / 1000:.0f} | {found[whole].median_ms:.3f} | 1.00x |"
    )
    for made in files:
        metric, time = score_model(made.file, task, 1).metric, found[made.name]
        size, speed = made.file.stat().st_size / 1000, found[whole].median_ms / time.median_ms
        print(
            f"| {made.name} | {made.layers} | {made.share:.4f} | {metric:.4f} | {size:.0f} | {time.median_ms:.3f} | "
            f"{speed:.2f}x |"
        )


if __name__ == "__main__":
    main()
