"""Problems of a recipe that no key has alone; all of these work on recipes that have other problems, too."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compress.artifacts import VAL
from compress.data.file_names import find_archives, is_sharded
from compress.errors import DataError
from compress.recipe.problems import show, unknown_key
from compress.recipe.raw import FACTORY, INPUT_KEYS, at, steps_of
from compress.recipe.schema import STEPS
from compress.recipe.task_settings import FIGURES_OF, INPUTS
from compress.recipe.values import TEST

TARGETS = {"macs", "params", "latency", "metric_drop"}
"""Of pruning by a scan."""
Problem = tuple[str, str]
"""(dotted key, what is wrong with it and what to do)"""


def check_between_keys(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Steps out of order or twice, and keys that need or contradict each other."""
    names = [name for name, _ in steps_of(data) if name in STEPS]
    yield from _check_order(names)
    yield from _check_prune(dict(steps_of(data)))
    if isinstance(data.get("data"), dict) and not at(data, "data", "train") and not at(data, "data", "images"):
        if at(dict(steps_of(data)), "prune", "search"):
            yield "data.train", "missing. `prune.search` recovers its candidates on it. Add a label list."
        if {"teacher", "reconstruct", "finetune", "quantize"} & set(names):
            yield "data.train", "missing. `finetune` and `quantize` train on it. Add a label list."
        elif at(data, "compare", "onnxruntime") is True:
            yield "data.train", "missing. `compare.onnxruntime` calibrates on it. Add a label list."
    kind = at(data, "task", "kind")
    if at(data, "data", "images") and kind == "detection":
        for step in sorted({"teacher", "finetune", "quantize"} & set(names)):
            settings = dict(steps_of(data))[step]
            if settings.get("distill") == 0 and settings.get("epochs") != 0:
                yield f"{step}.distill", "got 0, but of `data.images` only the teacher's map is learned. Use e.g. 1.0."
    for step in ("sensitivity", "replace"):
        if dict(steps_of(data)).get(step, {}).get("side") and kind in INPUTS and kind != "detection":
            yield f"{step}.side", f"not for {kind}. Remove it; `images` makes a scan quicker, too."
    yield from _check_scan(data, dict(steps_of(data)).get("sensitivity", {}))
    yield from _check_sets(data)
    gate = "speedup_over_onnxruntime"
    if at(data, "gates", gate) is not None and not at(data, "compare", "onnxruntime"):
        yield f"gates.{gate}", "needs onnxruntime's own int8 file. Set compare: {onnxruntime: true}."
    if data.get("weights") and isinstance(data.get("model"), str) and not FACTORY.fullmatch(data["model"]):
        yield "weights", "an ONNX model has its weights inside. Remove it, or name a factory as the model."


def check_files(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Inputs that are not there."""
    for keys in INPUT_KEYS:
        given = at(data, *keys)
        named = {f".{name}": value for name, value in given.items()} if isinstance(given, dict) else {"": given}
        for name, value in named.items():
            key = ".".join(keys) + name
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, str) and not FACTORY.fullmatch(item) and (text := _missing(Path(item), keys)):
                    yield key, f"{text} Use --set {key}=PATH."


def _missing(path: Path, keys: tuple[str, ...]) -> str:
    """What is not there, or nothing. Data may be a folder or archives; what they must hold is said when it is read."""
    if keys[0] == "data" and is_sharded(path):
        try:
            find_archives(path)
        except DataError as error:
            return str(error)
    elif not (path.is_file() or (keys[0] == "data" and path.is_dir())):
        return f"{path}: no such file."
    return ""


def _check_scan(data: Mapping[str, Any], scan: Mapping[str, Any]) -> Iterator[Problem]:
    """What a scan needs of the data, and settings that it ignores."""
    unlabelled = scan.get("measure") in ("divergence", "agreement")
    if unlabelled and scan.get("side"):
        yield "sensitivity.side", f"not with measure: {scan['measure']}, which looks at training images. Remove it."
    if scan.get("budget") is not None and scan.get("recover") == "reconstruct":
        yield "sensitivity.budget", "not with recover: reconstruct. Remove one."
    listed = isinstance(data.get("data"), dict) and not at(data, "data", "images") and not at(data, "data", "train")
    if listed and (unlabelled or scan.get("recover") == "reconstruct" or scan.get("criterion") == "obs"):
        yield "data.train", "missing. The scan looks at training images. Add a label list."


def _check_sets(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Test sets whose name is taken, and gates of sets and figures that are not there."""
    given, kind = at(data, "data", "test"), at(data, "task", "kind")
    tests = tuple(map(str, given)) if isinstance(given, dict) else (TEST,) if given else ()
    if VAL in tests:
        yield f"data.test.{VAL}", "is what gates call the validation data. Use another name."
    known = {"metric_drop": (VAL, *tests), "metric_min": (VAL, *tests), "worst_set": FIGURES_OF.get(str(kind), ())}
    for gate, names in known.items():
        limits = at(data, "gates", gate)
        for name in limits if isinstance(limits, dict) and names else ():
            if str(name) not in names:
                yield f"gates.{gate}.{name}", unknown_key(str(name), names)
    if at(data, "gates", "worst_set") is not None and not tests:
        yield "gates.worst_set", "needs test sets. Set data.test, or use metric_drop."


def _check_order(names: list[str]) -> Iterator[Problem]:
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield "steps", f"`{name}` comes {names.count(name)} times. Each step may come once. Use a second recipe."
    if names != sorted(names, key=list(STEPS).index):
        yield "steps", f"got the order {', '.join(names)}. Must be in the order {', '.join(STEPS)}."


def _check_prune(steps: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    prune = steps.get("prune", {})
    target = prune.get("target")
    if isinstance(target, dict) and TARGETS & set(target) and "sensitivity" not in steps:
        yield "prune.target", f"got {show(target)}, which needs a `sensitivity` step before it. Add one, or use ratio."
    if "reconstruct" in steps and "prune" not in steps:
        yield "reconstruct", "needs a `prune` step before it: it solves for what pruning left. Add one, or remove it."
    if isinstance(prune.get("search"), dict):
        if "sensitivity" not in steps:
            yield "prune.search", "needs a `sensitivity` step before it, around whose plan it searches. Add one."
        if isinstance(target, dict) and not (TARGETS - {"metric_drop"}) & set(target):
            yield "prune.search", f"not with {show(target)}: plans are compared at targets of macs, params or latency."
    if prune.get("pessimistic") is True and steps.get("sensitivity", {}).get("budget") is None:
        yield (
            "prune.pessimistic",
            "needs a scan with a `budget`, which alone says how sure it is. Add one, or remove it.",
        )
    asked, ranked = prune.get("criterion"), steps.get("sensitivity", {}).get("criterion") or "fpgm"
    if asked and "sensitivity" in steps and asked != ranked:
        yield "prune.criterion", f"got {show(asked)}, but `sensitivity` ranks by {ranked}. Must be the same."
    if asked == "obs" and "sensitivity" not in steps:
        yield "prune.criterion", "obs ranks by images, in a `sensitivity` step before it. Add one, or use fpgm."
