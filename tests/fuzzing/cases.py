"""Which command is fed which broken input: a case is made in a folder of its own, from its number alone."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.fuzzing import mutations
from tests.fuzzing.inputs import CLASSIFY, FIND, MODELS

Mutate = Callable[[bytes, random.Random], bytes]


def make_case(number: int, good: Path, folder: Path) -> list[str]:
    """Make a case's inputs in `folder`/in (a copy of the good ones, one file broken); the command's arguments.

    Whatever it writes belongs in ../out, seen from there.
    """
    rng = random.Random(number)
    given = folder / "in"
    (folder / "out").mkdir()
    kind = KINDS[number % len(KINDS)]
    shutil.copytree(good, given, ignore=None if kind is _artefact else shutil.ignore_patterns("finished"))
    return kind(given, rng)


def _break(path: Path, mutate: Mutate, rng: random.Random) -> None:
    path.write_bytes(mutate(path.read_bytes(), rng))


def _scored(model: str) -> list[str]:
    """Task, data and input of each model."""
    if model == "reader":
        return ["--task", "recognition", "--charset", "charset.txt", "--input", "3,16,64", "--data", "words/labels.txt"]
    if model == "finder":
        return [*FIND, "--data", "scenes/labels.txt"]
    return [*CLASSIFY, "--data", "val/labels.txt"]


TRAINED = {"reader": "words/labels.txt", "finder": "scenes/labels.txt"}
SIZES = {"reader": "3,16,64", "finder": "3,64,64"}


def _trained(model: str, rng: random.Random) -> list[str]:
    """Fine-tune or quantise."""
    data = [*_scored(model), "--train", TRAINED.get(model, "train/labels.txt"), "--batch-size", "4", "--threads", "1"]
    if model == "finder":
        data += ["--crop", "64", "--augment", "none"]
    if rng.random() < 0.5:
        return ["finetune", f"{model}.onnx", *data, "--epochs", "1", "--out", "../out/finetuned.onnx"]
    plain = ["--calibration", "4", "--optimize", "size", "--epochs", str(rng.choice((0, 0, 1)))]
    return ["quantize", f"{model}.onnx", *data, *plain, "--out", "../out/int8.onnx"]


def _skipping(rng: random.Random) -> list[str]:
    """Mostly go on without what is unusable."""
    return ["--max-skipped", "0.9"] if rng.random() < 0.7 else []


def _model(given: Path, rng: random.Random) -> list[str]:
    name = rng.choice(MODELS)
    model, size = f"{name}.onnx", ["--input", SIZES.get(name, "3,16,32")]
    _break(given / model, mutations.change_model if rng.random() < 0.85 else mutations.change_bytes, rng)
    return rng.choice(
        (
            ["inspect", model, *rng.choice((size, []))],
            ["inspect", model, *size],
            ["evaluate", model, *_scored(name), "--threads", "1"],
            ["prune", model, *size, "--ratio", "0.5", "--align", "1", "--out", "../out/pruned.onnx"],
            ["prune", model, *size, "--ratio", "0.3", "--align", "1", "--out", "../out/pruned.onnx"],
            ["sensitivity", model, *_scored(name), "--ratios", "0.5", "--out", "../out"],
            ["replace", model, "--activation", "hardswish=relu", "--out", "../out/replaced.onnx"],
            ["bench", model, "tiny.onnx", *size, "--rounds", "3"],
            _trained(name, rng),
            _trained(name, rng),
        )
    )


def _recipe(given: Path, rng: random.Random) -> list[str]:
    _break(given / "recipe.yaml", mutations.change_recipe, rng)
    return ["run", "recipe.yaml", "--out", "../out"]


def _list(given: Path, rng: random.Random) -> list[str]:
    name = rng.choice(("tiny", "reader", "finder", "finder"))
    held = {"tiny": "val", "reader": "words", "finder": "scenes"}[name]
    path = given / held / "labels.txt"
    if rng.random() < 0.05:
        path.unlink()
        path.mkdir()
    else:
        _break(path, mutations.change_list, rng)
    if name == "reader" and rng.random() < 0.3:
        _break(given / "charset.txt", mutations.change_bytes, rng)
    if rng.random() < 0.25:
        return [*_trained(name, rng), *_skipping(rng)]
    if name == "finder" and rng.random() < 0.3:
        return ["crop", "scenes/labels.txt", "--out", "../out/crops"]
    pictures = ["--save-images", "2", "--images-out", "../out/images"] if rng.random() < 0.5 else []
    return ["evaluate", f"{name}.onnx", *_scored(name), "--threads", "1", *pictures, *_skipping(rng)]


def _artefact(given: Path, rng: random.Random) -> list[str]:
    """Of a run that is finished, or as good as, one file is broken; then it is run again, reported or pruned by."""
    out = given.parent / "out"
    shutil.copytree(given / "finished", out, dirs_exist_ok=True)
    names = [f"{name}.json" for name in ("sensitivity", "plan", "pruned", "int8", "finetuned", "report", "sensitivity")]
    name = rng.choice((*names, "pruned.onnx", "finetuned.checkpoint"))
    if name == "finetuned.checkpoint":
        for done in out.glob("finetuned.*"):
            done.unlink()
        (out / name).write_bytes(mutations.change_bytes((given / "checkpoint").read_bytes(), rng))
    else:
        kind = mutations.change_json if name.endswith(".json") else mutations.change_model
        _break(out / name, kind, rng)
    if name == "report.json":
        return ["report", "../out"]
    if name == "sensitivity.json" and rng.random() < 0.7:
        target = rng.choice(("macs=0.5", "metric_drop=0.5", "latency=0.7"))
        asked = ["--sensitivity", "../out/sensitivity.json", "--target", target, "--align", "1", "--input", "3,16,32"]
        return ["prune", "tiny.onnx", *asked, "--out", "../out/again.onnx"]
    return ["run", "recipe.yaml", "--out", "../out"]


def _image(given: Path, rng: random.Random) -> list[str]:
    name, held = rng.choice((("tiny", "val"), ("reader", "words"), ("finder", "scenes")))
    images = sorted(path for path in (given / held).rglob("*") if path.suffix in (".png", ".jpg"))
    for path in rng.sample(images, rng.choice((1, 2))):
        _break(path, mutations.odd_image, rng)
    pictures = ["--save-images", "3", "--images-out", "../out/images"] if rng.random() < 0.5 else []
    if rng.random() < 0.2:
        return [*_trained(name, rng), *_skipping(rng)]
    return ["evaluate", f"{name}.onnx", *_scored(name), "--threads", "1", *pictures, *_skipping(rng)]


KINDS = (_model, _model, _model, _model, _recipe, _recipe, _list, _list, _artefact, _image)
