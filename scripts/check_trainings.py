"""Run a shortened version of each PP-OCR recipe's training on what ships, and compare with what it came to before.

    python scripts/check_trainings.py              all three, under four minutes on one core
    python scripts/check_trainings.py det          recipes/check_det.yaml alone
    python scripts/check_trainings.py --update     write tests/trainings.yaml anew, after a change that is meant
    python scripts/check_trainings.py --seed 1     another seed: how far figures move by chance (compares, exits with 1)

Of every stage tests/trainings.yaml holds the metric, and, of a stage that trains, the loss of the first step, before
any update, and the mean loss of the last epoch. The metric of so short a training says little: the first loss is the
same on every machine but for rounding, and shows any change of a loss, of its targets or of the images; the last
epoch's shows a change of gradients, rates, averages or pruning. Not so under quantisation: weights that differ by the
CPU's rounding are rounded to other integers, and the first step's loss differs by up to 13 % (check_cls: 0.7628 on an
Intel CPU, 0.6691 on an AMD one, 0.7039 there with AVX2 alone). So of the int8 stage it is the mean of the first epoch
that is held. The figures in the file are of AVX2 alone (ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2
MKL_ENABLE_INSTRUCTIONS=AVX2), which lie between those of three kinds of CPU. A change that is meant is seen in the
difference of tests/trainings.yaml.
Then the recipes' own figures are stale, too (scripts/check_figures.py).

The detector that ships and rendered labels lack what decides the training of a deployed one: it is never sure, and they
are never wrong. So its logits are doubled and its training labels shifted, which leaves a fifth of the pixels labelled
text where it gives less than 1e-6, as a quarter are on photographed receipts.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import yaml
from onnx import numpy_helper

from compress.data.synthetic import write_dataset
from compress.data.synthetic_scenes import write_scenes
from compress.errors import CompressError
from compress.pipeline import run_recipe
from compress.recipe import Recipe, load_recipe

ROOT = Path(__file__).parents[1]
EXPECTED = ROOT / "tests" / "trainings.yaml"
FAMILIES = ("det", "rec", "cls")
DATA = {"det": ("scenes", "words"), "rec": ("words",), "cls": ("words",)}
KINDS = {"scenes": (write_scenes, (16, 10)), "words": (write_dataset, (128, 96))}
"""Kind of data -> its writer, and how many images it writes to train and to validate."""
SURER = 2.0
"""Factor on the detector's logits."""
SHIFT = 0.15
"""By how much of their height the detector's training labels lie too low."""
LOSS = re.compile(r"epoch (\d+)/\d+ loss (\S+) best")
Figures = dict[str, dict[str, float]]
"""Stage -> name of a figure (`metric`, `first_loss` or `first_epoch`, `last_loss`) -> its value."""
TOLERANCES = {"metric": 0.05, "first_loss": 0.001, "first_epoch": 0.04, "last_loss": 0.04}
"""Differences that are allowed where tests/trainings.yaml names none: absolute of a metric, relative of a loss."""


@dataclass
class Losses:
    """Reads the losses of each training's steps from what a run says of its progress."""

    trainings: list[list[tuple[int, float]]] = field(default_factory=list)
    """Of each training (epoch, loss) of every step, in the order of the run."""

    def __call__(self, done: int, total: int, message: str) -> None:
        """As a run's `on_progress`."""
        match = LOSS.match(message)
        if match is None:
            return
        if done == 1:
            self.trainings.append([])
        self.trainings[-1].append((int(match[1]), float(match[2])))


def loss_figures(steps: Sequence[tuple[int, float]], quantised: bool = False) -> dict[str, float]:
    """The loss before any update (of a quantised network the first epoch's mean), and the last epoch's mean.

    >>> loss_figures([(1, 3.0), (1, 2.5), (2, 2.0), (2, 1.0)])
    {'first_loss': 3.0, 'last_loss': 1.5}
    >>> loss_figures([(1, 3.0), (1, 2.5), (2, 2.0), (2, 1.0)], quantised=True)
    {'first_epoch': 2.75, 'last_loss': 1.5}
    """

    def mean(of: int) -> float:
        losses = [loss for epoch, loss in steps if epoch == of]
        return round(sum(losses) / len(losses), 4)

    first = {"first_epoch": mean(1)} if quantised else {"first_loss": steps[0][1]}
    return first | {"last_loss": mean(steps[-1][0])}


def train(recipe: Recipe) -> Figures:
    """Run a recipe, and take the figures of its stages."""
    losses = Losses()
    report = run_recipe(recipe, "scripts/check_trainings.py", losses)
    found: Figures = {stage.stage: {"metric": round(stage.score.metric, 4)} for stage in report.stages}
    del found["canonical"]  # the baseline's metric once more
    trained = [stage for stage in ("teacher", "finetuned", "int8") if stage in found]
    for stage, steps in zip(trained, losses.trainings, strict=True):
        found[stage] |= loss_figures(steps, quantised=stage == "int8")
    return found


def shortened(family: str, data: Path, out: Path, seed: int = 0) -> Recipe:
    """A family's recipe over data that is rendered where it is not there yet."""
    for kind in DATA[family]:
        write, counts = KINDS[kind]
        for number, (part, count) in enumerate(zip(("train", "val"), counts, strict=True)):
            if not (data / kind / part / "labels.txt").is_file():
                write(data / kind / part, count, number)
    if family == "det":
        changes = [f"model={_surer_detector(data)}"]
        _shift_labels(data / "scenes" / "train" / "labels.txt")
    else:
        changes = []
    first = DATA[family][0]
    changes += [f"data.{part}={data / first / part / 'labels.txt'}" for part in ("train", "val")]
    changes += [f"data.unlabelled={data / kind / 'train' / 'labels.txt'}" for kind in DATA[family][1:]]
    return load_recipe(ROOT / "recipes" / f"check_{family}.yaml", [*changes, f"out={out}", f"seed={seed}"])


def _surer_detector(folder: Path) -> Path:
    """The detector that ships with its logits times `SURER`: weights and bias in front of the last sigmoid."""
    model = onnx.load(ROOT / "compress" / "zoo" / "models" / "text_detector.onnx")
    sigmoid = next(node for node in model.graph.node if model.graph.output[0].name in node.output)
    last = next(node for node in model.graph.node if sigmoid.input[0] in node.output)
    for weights in model.graph.initializer:
        if weights.name in last.input[1:]:
            weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(SURER), weights.name))
    onnx.save(model, folder / "detector.onnx")
    return folder / "detector.onnx"


def _shift_labels(file: Path) -> None:
    """Move every region of a list down by `SHIFT` of its height, once."""
    kept = file.with_name("labels_as_rendered.txt")
    if not kept.is_file():
        kept.write_bytes(file.read_bytes())
    lines = []
    for line in kept.read_text(encoding="utf-8").splitlines():
        image, regions = line.split("\t")
        found = json.loads(regions)
        for region in found:
            heights = [y for _, y in region["points"]]
            down = SHIFT * (max(heights) - min(heights))
            region["points"] = [[x, y + down] for x, y in region["points"]]
        lines.append(f"{image}\t{json.dumps(found, ensure_ascii=False)}\n")
    file.write_text("".join(lines), encoding="utf-8")


def differences(found: Figures, expected: Figures, tolerances: Mapping[str, float] = TOLERANCES) -> list[str]:
    """What is further from the expected figures than allowed, a line each; what only one of both has is, too.

    >>> differences({"int8": {"metric": 0.7}}, {"int8": {"metric": 0.9}})
    ['int8 metric: 0.7, expected 0.9 +- 0.05']
    """
    lines = []
    for stage in dict.fromkeys((*expected, *found)):
        ours, theirs = found.get(stage, {}), expected.get(stage, {})
        for name in dict.fromkeys((*theirs, *ours)):
            value, wanted = ours.get(name), theirs.get(name)
            if value is None or wanted is None:
                lines.append(f"{stage} {name}: {value}, expected {wanted}")
                continue
            allowed = tolerances[name] * (1 if name == "metric" else abs(wanted))
            if not abs(value - wanted) <= allowed:
                lines.append(f"{stage} {name}: {value:g}, expected {wanted:g} +- {allowed:.2g}")
    return lines


def read_expected(path: Path = EXPECTED) -> dict[str, Figures]:
    """Family -> its figures."""
    found: dict[str, Figures] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return found


def write_expected(figures: Mapping[str, Figures], path: Path = EXPECTED) -> None:
    """Write them all, under a comment that says how."""
    text = yaml.safe_dump(dict(figures), sort_keys=False)
    path.write_text(f"# Written by scripts/check_trainings.py --update; do not edit.\n{text}", encoding="utf-8")


def main() -> int:
    options = parse_arguments()
    expected = read_expected() if EXPECTED.is_file() else {}
    wrong = []
    for family in options.families or FAMILIES:
        with tempfile.TemporaryDirectory() as out:
            found = train(shortened(family, options.data, Path(out), options.seed))
        print(f"{family}:\n" + "\n".join(f"  {stage}: {figures}" for stage, figures in found.items()), flush=True)
        if options.update:
            expected[family] = found
        wrong += [f"{family} {line}" for line in differences(found, expected.get(family, {}))]
    if options.update:
        write_expected({family: expected[family] for family in FAMILIES if family in expected})
        print(f"Written: {EXPECTED.relative_to(ROOT)}")
    print("\n".join(wrong) or "All as expected.")
    return 1 if wrong else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"some of {', '.join(FAMILIES)}; default all")
    parser.add_argument("--update", action="store_true", help="write what is found as what is expected")
    parser.add_argument("--seed", type=int, default=0, help="of the trainings (default %(default)s)")
    parser.add_argument("--data", type=Path, default=ROOT / "runs" / "check_data", help="folder of the rendered images")
    options = parser.parse_args()
    if unknown := set(options.families) - set(FAMILIES):
        parser.error(f"got {', '.join(sorted(unknown))}. Use some of {', '.join(FAMILIES)}.")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CompressError as error:
        sys.exit(f"Error: {error}")
