"""A recipe is checked whole: every problem is shown, each with what is allowed and what to do."""

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from compress.errors import RecipeError
from compress.recipe import FinetuneStep, PruneStep, QuantizeStep, Recipe, SensitivityStep, load_recipe
from compress.recipe.schema import DataSettings
from compress.recipe.write import recipe_text
from compress.recipe.yaml_core import load_yaml

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))


def make_recipe(**changes: Any) -> dict[str, Any]:
    """A recipe with every step; `changes` replace or (None) remove top-level keys."""
    data = {
        "version": 1,
        "model": "m.onnx",
        "task": {"kind": "classification", "input": [3, 48, 192]},
        "data": {"train": ["t.txt"], "val": "v.txt"},
        "steps": [
            {"sensitivity": {"criterion": "l1", "ratios": [0.25, 0.5]}},
            {"prune": {"target": {"macs": 0.6}, "align": 8}},
            {"finetune": {"epochs": 3}},
            {"quantize": {"epochs": 2, "pact": {"l2": 0.01}}},
        ],
        **changes,
    }
    return {key: value for key, value in data.items() if value is not None}


def load(tmp_path: Path, data: dict[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe from a folder in which its files exist."""
    for name in ("m.onnx", "t.txt", "v.txt"):
        (tmp_path / name).touch()
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return load_recipe(path, overrides)


def problems(tmp_path: Path, data: dict[str, Any], overrides: Sequence[str] = ()) -> list[str]:
    """The lines of the error, without the file's name."""
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, data, overrides)
    return [line.replace(f"{tmp_path / 'r.yaml'}: ", "") for line in str(caught.value).splitlines()]


def with_tests(**gates: Any) -> dict[str, Any]:
    """A recipe with two test sets and these gates."""
    tests = {"lines": "v.txt", "street": ["v.txt", "t.txt"]}
    return make_recipe(data={"train": "t.txt", "val": "v.txt", "test": tests}, gates=gates)


def prune_with(**settings: Any) -> dict[str, Any]:
    return make_recipe(steps=[{"prune": {"target": {"ratio": 0.3}, **settings}}])


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 2


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_is_valid(path: Path) -> None:
    recipe = load_recipe(path, check_files=False)
    assert recipe.name == path.stem
    assert recipe.find_step(QuantizeStep), "recipes end in an int8 file"
    assert not re.search(r"[\s\[]/", path.read_text(encoding="utf-8")), "no absolute paths"


def test_a_whole_recipe(tmp_path: Path) -> None:
    recipe = load(tmp_path, make_recipe(seed=3, gates={"size_ratio": 0.5}))
    assert [type(step) for step in recipe.steps] == [SensitivityStep, PruneStep, FinetuneStep, QuantizeStep]
    prune, quantize = recipe.find_step(PruneStep), recipe.find_step(QuantizeStep)
    assert prune is not None
    assert prune.target.as_dict() == {"macs": 0.6}
    assert quantize is not None
    assert (quantize.pact.l2, quantize.pact.enabled, quantize.calibration) == (0.01, True, 256)
    assert recipe.gates.as_dict() == {"size_ratio": 0.5}
    assert (recipe.name, recipe.out, recipe.seed) == ("r", Path("runs/r"), 3)
    assert (recipe.model, recipe.data.val) == (str(tmp_path / "m.onnx"), (tmp_path / "v.txt",))


def test_prune_ranks_as_the_scan_did(tmp_path: Path) -> None:
    prune = load(tmp_path, make_recipe()).find_step(PruneStep)
    assert prune is not None
    assert prune.criterion == "l1"
    steps = make_recipe()["steps"]
    steps[1]["prune"]["criterion"] = "l2"
    assert problems(tmp_path, make_recipe(steps=steps)) == [
        'prune.criterion: got "l2", but `sensitivity` ranks by l1. Must be the same.'
    ]


def test_recognition(tmp_path: Path) -> None:
    """The charset is a path of the recipe, data may be LMDB folders, and the input's default is the recogniser's."""
    (tmp_path / "db").mkdir()
    task = {"kind": "recognition", "charset": "v.txt", "widths": [160, 320]}
    recipe = load(tmp_path, make_recipe(task=task, data={"train": ["t.txt", "db"], "val": "db"}))
    assert recipe.task.charset == tmp_path / "v.txt"
    assert recipe.data.train == (tmp_path / "t.txt", tmp_path / "db")
    assert (recipe.task.input_shape, recipe.task.widths, recipe.task.use_space) == ((3, 32, 320), (160, 320), True)
    assert load(tmp_path, make_recipe(task={"kind": "classification"})).task.input_shape == (3, 48, 192)


def test_recipes_are_values(tmp_path: Path) -> None:
    one, other = load(tmp_path, make_recipe()), load(tmp_path, make_recipe())
    assert one == other
    with pytest.raises(ValidationError, match="frozen"):
        one.seed = 1  # type: ignore[misc]


def test_steps_without_settings_take_the_defaults(tmp_path: Path) -> None:
    recipe = load(tmp_path, make_recipe(steps=[{"finetune": None}, {"quantize": {}}]))
    assert recipe.steps == (FinetuneStep(), QuantizeStep())


def test_scientific_numbers_without_a_dot(tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-3 as text."""
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(make_recipe()).replace("epochs: 3", "lr: 1e-3"), encoding="utf-8")
    step = load_recipe(tmp_path / "r.yaml", check_files=False).find_step(FinetuneStep)
    assert step is not None
    assert step.lr == 0.001


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (prune_with(align=12), "prune.align: got 12. Must be 1, 2, 4 or a multiple of 8. Use 8 or 16."),
        (prune_with(align=True), "prune.align: got true. Must be a whole number."),
        (prune_with(algin=8), "prune.algin: unknown key. Did you mean `align`? Known: target, align,"),
        (
            prune_with(criterion="fpmg"),
            'prune.criterion: got "fpmg". Must be fpgm, l1, l2 or obs. Did you mean `fpgm`?',
        ),
        (prune_with(target={"ratio": 1.0}), "prune.target.ratio: got 1.0. Must be a share in [0, 1)."),
        (prune_with(target={"ratio": -0.1}), "prune.target.ratio: got -0.1. Must be a share in [0, 1)."),
        (prune_with(target={"ratio": float("nan")}), "prune.target.ratio: got NaN. Must be a finite number."),
        (
            prune_with(target={}),
            "prune.target: Must hold ratio alone, or one or several of metric_drop, macs, params, latency.",
        ),
        (prune_with(target={"ratio": 0.1, "macs": 0.5}), "prune.target: Must hold ratio alone, or one or"),
        (
            prune_with(target=0.5),
            "prune.target: got 0.5. Must be a mapping of keys: ratio, metric_drop, macs, params, latency.",
        ),
        (prune_with(target={"macs": 0.5}), 'prune.target: got {"macs": 0.5}, which needs a `sensitivity` step before'),
        (prune_with(target={"latency": 0.5}), 'prune.target: got {"latency": 0.5}, which needs a `sensitivity` step'),
        (prune_with(precision="int4"), 'prune.precision: got "int4". Must be float32, int8 or mixed.'),
        (make_recipe(steps=[{"prune": {}}]), "prune.target: missing. Add it: how much to remove"),
        (make_recipe(steps=[]), "steps: got []. Must hold at least one step."),
        (make_recipe(steps="prune"), 'steps: got "prune". Must be a list.'),
        (
            make_recipe(steps=["prune"]),
            'steps[0]: got "prune". Must be one step with its settings: teacher, sensitivity, replace',
        ),
        (make_recipe(steps=[{"prun": {}}]), "Did you mean `prune`?"),
        (make_recipe(steps=[{"finetune": 3}]), "finetune: got 3. Must be a mapping of keys: epochs, lr"),
        (make_recipe(steps=[{"finetune": {"epochs": 0}}]), "finetune.epochs: got 0. Must be 1 or more."),
        (make_recipe(steps=[{"finetune": {"lr": "fast"}}]), 'finetune.lr: got "fast". Must be a number.'),
        (
            make_recipe(steps=[{"finetune": {"epochs": 2, "warmup_epochs": 2}}]),
            "finetune: warmup_epochs is 2 of 2 epochs. Must be fewer than epochs.",
        ),
        (
            make_recipe(steps=[{"finetune": {"epochs": 1, "warmup_epochs": 1}}]),
            "finetune: warmup_epochs is 1 of 1 epoch. Must be fewer than epochs.",
        ),
        (make_recipe(steps=[{"quantize": {"weight_bits": 4}}]), "quantize.weight_bits: got 4. Must be 7 or 8."),
        (
            make_recipe(steps=[{"quantize": {"pact": {"percentile": 0.9}}}]),
            "quantize.pact.percentile: got 0.9. Must be in (50, 100]. Use e.g. 99.99.",
        ),
        (make_recipe(steps=[{"sensitivity": {"ratios": [0.5, 0.25]}}]), "sensitivity.ratios: got [0.5, 0.25]. Must be"),
        (
            make_recipe(steps=[{"sensitivity": {"ratios": [0.5, 1.5]}}]),
            "sensitivity.ratios[1]: got 1.5. Must be a share",
        ),
        (make_recipe(steps=[{"sensitivity": {"ratios": []}}]), "sensitivity.ratios: got []. Must be rising"),
        (
            make_recipe(steps=[{"quantize": {}}, {"finetune": {}}]),
            "steps: got the order quantize, finetune. "
            "Must be in the order teacher, sensitivity, replace, prune, reconstruct, finetune, quantize.",
        ),
        (make_recipe(steps=[{"finetune": {}}] * 2), "steps: `finetune` comes 2 times. Each step may come once."),
        (make_recipe(modle="x"), "modle: unknown key. Did you mean `model`?"),
        (make_recipe(version=2), "version: got 2. Must be 1."),
        (make_recipe(version=None), "version: missing. Add it: of the recipe's form; 1."),
        (make_recipe(model=None), "model: missing. Add it: an ONNX file"),
        (make_recipe(model=3), "model: got 3. Must be text."),
        (make_recipe(weights="v.txt"), "weights: an ONNX model has its weights inside."),
        (make_recipe(task={"kind": "reading"}), 'task.kind: got "reading". Must be classification, '),
        (
            make_recipe(steps=[{"sensitivity": {"side": 640}}]),
            "sensitivity.side: not for classification. Remove it; `images` makes a scan quicker, too.",
        ),
        (
            make_recipe(steps=[{"sensitivity": {"budget": "soon"}}]),
            'sensitivity.budget: got "soon". Must be a time above 0. Use e.g. 5m, 90s or 1h.',
        ),
        (
            make_recipe(steps=[{"sensitivity": {"budget": "5m", "recover": "reconstruct"}}]),
            "sensitivity.budget: not with recover: reconstruct. Remove one.",
        ),
        (
            make_recipe(steps=[{"sensitivity": None}, {"prune": {"target": {"macs": 0.5}, "pessimistic": True}}]),
            "prune.pessimistic: needs a scan with a `budget`, which alone says how sure it is.",
        ),
        (
            make_recipe(steps=[{"quantize": {"float_budget": 1.5}}]),
            "quantize.float_budget: got 1.5. Must be a share in (0, 1]. Use e.g. 0.5.",
        ),
        (
            make_recipe(steps=[{"replace": None}]),
            "replace.hardswish: missing. Add it: what takes the place of hard-swish",
        ),
        (make_recipe(steps=[{"replace": {"hardswish": "gelu"}}]), 'replace.hardswish: got "gelu". Must be relu.'),
        (
            make_recipe(steps=[{"replace": {"hardswich": "relu"}}]),
            "replace.hardswich: unknown key. Did you mean `hards",
        ),
        (
            make_recipe(steps=[{"replace": {"hardswish": "relu", "layers": []}}]),
            "replace.layers: got []. Must name one activation or more. Use e.g. ['*'].",
        ),
        (
            make_recipe(steps=[{"replace": {"hardswish": "relu", "metric_drop": -0.1}}]),
            "replace.metric_drop: got -0.1. Must be 0 or more.",
        ),
        (make_recipe(steps=[{"finetune": {"mutual": -1}}]), "finetune.mutual: got -1. Must be 0 or more."),
        (make_recipe(steps=[{"finetune": {"mutual": True}}]), "finetune.mutual: got true. Must be"),
        (make_recipe(steps=[{"teacher": {"mutual": 1.0}}]), "teacher.mutual: unknown key."),
        (
            make_recipe(steps=[{"replace": {"hardswish": "relu", "images": 8}}]),
            "replace: images: needs metric_drop, without which nothing is measured. Remove it, or set that.",
        ),
        (
            make_recipe(steps=[{"replace": {"hardswish": "relu", "metric_drop": 0.1, "side": 640}}]),
            "replace.side: not for classification. Remove it; `images` makes a scan quicker, too.",
        ),
        (
            make_recipe(steps=[{"prune": {"target": {"ratio": 0.5}}}, {"replace": {"hardswish": "relu"}}]),
            "steps: got the order prune, replace. Must be in the order teacher, sensitivity, replace, prune",
        ),
        (
            make_recipe(task={"kind": "detection"}, steps=[{"sensitivity": {"side": 650}}]),
            "sensitivity.side: got 650. Must be a multiple of 32. Use e.g. 960 or 1280.",
        ),
        (
            make_recipe(data={"train": "t.txt", "val": "v.txt", "unlabelled": "nowhere"}),
            "nowhere: no such file. Use --set data.unlabelled=PATH.",
        ),
        (make_recipe(compare={"images": -1}), "compare.images: got -1. Must be 0 or more."),
        (make_recipe(task={"kind": "recognition"}), "task: charset is missing. Recognition needs the charset file"),
        (
            make_recipe(task={"kind": "recognition", "charset": "no.txt"}),
            "no.txt: no such file. Use --set task.charset=PATH.",
        ),
        (
            make_recipe(task={"kind": "recognition", "charset": "v.txt", "labels": ["a"], "directions": True}),
            "task: directions, labels: not for recognition. Remove them.",
        ),
        (
            make_recipe(task={"kind": "classification", "charset": "v.txt"}),
            "task: charset: not for classification. Remove it.",
        ),
        (
            make_recipe(task={"kind": "recognition", "charset": "v.txt", "widths": [320, 160]}),
            "task.widths: got [320, 160]. Must be rising",
        ),
        (make_recipe(threads=10**30), "threads: got 1000000000000000000000000000000. Must be below 2147483648."),
        (make_recipe(threads=2000), "threads: got 2000. Must be at most 1024."),
        (make_recipe(seed=2**31), "seed: got 2147483648. Must be below 2147483648."),
        (
            make_recipe(task={"kind": "classification", "input": [1, 48, 192]}),
            "task: input: got 1 channels. Must be 3: images are fed as bgr. For such a model: preprocess.color gray.",
        ),
        (make_recipe(task={"kind": "classification", "input": [3, 48]}), "task.input: got [3, 48]. Must be [channels,"),
        (make_recipe(data={"val": "v.txt"}), "data.train: missing. `finetune` and `quantize` train on it."),
        (make_recipe(data={"train": "t.txt"}), "data: val is missing. Name a label list, or `images`: a folder of"),
        (
            make_recipe(data={"images": ".", "val": "v.txt"}),
            "data: got images and val. Must hold images, or train and val. Remove one.",
        ),
        (make_recipe(data={"images": "nowhere"}), "nowhere: no such file. Use --set data.images=PATH."),
        (make_recipe(data={"images": ".", "held_back": 1}), "data.held_back: got 1. Must be a share in (0, 1)."),
        (
            make_recipe(
                task={"kind": "detection"}, data={"images": "."}, steps=[{"finetune": {"epochs": 1, "distill": 0.0}}]
            ),
            "finetune.distill: got 0, but of `data.images` only the teacher's map is learned. Use e.g. 1.0.",
        ),
        (make_recipe(data={"train": "t.txt", "val": []}), "data.val: got []. Must name one file or more."),
        (make_recipe(data={"train": "t.txt", "val": [3]}), "data.val[0]: got 3. Must be a path."),
        (make_recipe(seed=-1), "seed: got -1. Must be 0 or more."),
        (make_recipe(threads=0), "threads: got 0. Must be 1 or more."),
        (make_recipe(gates={"sped": 2}), "gates.sped: unknown key. Did you mean `speedup`?"),
        (make_recipe(gates={"metric_min": 1.5}), "gates.metric_min: got 1.5. Must be a share in (0, 1]."),
        (make_recipe(gates={"metric_drop": {}}), "gates.metric_drop: Must be a number, or `name: number`."),
        (make_recipe(gates={"metric_drop": "low"}), 'gates.metric_drop: got "low". Must be a number.'),
        (with_tests(metric_drop={"lines": -1}), "gates.metric_drop.lines: got -1. Must be 0 or more."),
        (
            with_tests(metric_min={"val": 0.5, "lnes": 0.5}),
            "gates.metric_min.lnes: unknown key. Did you mean `lines`? Known: val, lines, street.",
        ),
        (with_tests(worst_set={"alnum": 0.1}), "gates.worst_set.alnum: unknown key. Known: accuracy."),
        (make_recipe(gates={"worst_set": 0.1}), "gates.worst_set: needs test sets. Set data.test, or use metric_drop."),
        (
            make_recipe(data={"train": "t.txt", "val": "v.txt", "test": {"val": "v.txt"}}),
            "data.test.val: is what gates call the validation data. Use another name.",
        ),
        (
            make_recipe(data={"train": "t.txt", "val": "v.txt", "test": {"a.b": "v.txt"}}),
            'data.test.a.b: got "a.b". Must be of letters, digits, - and _.',
        ),
        (
            make_recipe(data={"train": "t.txt", "val": "v.txt", "test": {"lines": ["v.txt", "no.txt"]}}),
            "no.txt: no such file. Use --set data.test.lines=PATH.",
        ),
        (
            make_recipe(data={"train": "t.txt", "val": "v.txt", "test": None}),
            "data.test: got null. Must be a value, or `name: value`",
        ),
        (
            make_recipe(gates={"speedup_over_onnxruntime": 1.0}),
            "gates.speedup_over_onnxruntime: needs onnxruntime's own int8 file. Set compare: {onnxruntime: true}.",
        ),
        (
            make_recipe(data={"val": "v.txt"}, steps=[{"sensitivity": {}}], compare={"onnxruntime": True}),
            "data.train: missing. `compare.onnxruntime` calibrates on it. Add a label list.",
        ),
        (make_recipe(compare={"onnxruntime": "on"}), 'compare.onnxruntime: got "on". Must be true or false.'),
        (make_recipe(model="no.onnx"), "no.onnx: no such file. Use --set model=PATH."),
        (
            make_recipe(data={"train": ["t.txt", "no.txt"], "val": "v.txt"}),
            "no.txt: no such file. Use --set data.train=",
        ),
    ],
    ids=lambda value: value[:50] if isinstance(value, str) else "",
)
def test_each_problem_is_named(tmp_path: Path, data: dict[str, Any], words: str) -> None:
    found = problems(tmp_path, data)
    assert any(words in line for line in found), found


def test_all_problems_are_shown_together(tmp_path: Path) -> None:
    data = make_recipe(
        model="no.onnx",
        colour="red",
        seed=-1,
        steps=[{"quantize": {"epochs": "many"}}, {"prune": {"target": {"ratio": 2}, "align": 12}}],
    )
    found = problems(tmp_path, data)
    keys = ["steps", "seed", "colour", "quantize.epochs", "prune.target.ratio", "prune.align", "model"]
    assert sorted(line.split(":")[0] for line in found) == sorted(keys)


def test_a_factory_is_no_file(tmp_path: Path) -> None:
    recipe = load(tmp_path, make_recipe(model="package.module:make_net", weights="v.txt"))
    assert (recipe.model, recipe.weights) == ("package.module:make_net", tmp_path / "v.txt")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "got null. Must be a mapping of keys: version"),
        ("- a\n- b", 'got ["a", "b"]. Must be a mapping'),
        ("version: 1\nmodel: [a", r"r\.yaml:2: not valid YAML"),
        ("version: 1\n\tmodel: a", r"r\.yaml:2: not valid YAML: found character '\\t'"),
        ("version: 1\nseed: 1\nseed: 2", r"r\.yaml:3: seed: given twice\. Keep one of them\."),
        ("version: 1\ndata: {val: a, val: b}", r"r\.yaml:2: val: given twice"),
        ("version: !!python/object/apply:os.getcwd []", "not valid YAML: could not determine a constructor"),
        ("version: \x01", "not valid YAML: special characters are not allowed"),
    ],
    ids=repr,
)
def test_what_is_not_a_recipe(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=words if "\\" in words else re.escape(words)) as caught:
        load_recipe(tmp_path / "r.yaml")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["010", "0o10", "1:30", "1e-3", "no", "on", "true", "~", "2026-11-23", "-1.5", "0x1F", "<<", "1_000"]
)
def test_texts_that_look_like_other_values_are_read_back(text: str) -> None:
    written = recipe_text({"name": text, "data": {"test": {text: [text, 1, 1e-05, 0.5, True, None]}}})
    assert load_yaml(written) == {"name": text, "data": {"test": {text: [text, 1, 1e-05, 0.5, True, None]}}}


def test_numbers_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    recipe = load(tmp_path, make_recipe(), ["seed=010", "finetune.lr=1e-3", "name=1:30"])
    finetune = recipe.find_step(FinetuneStep)
    assert finetune is not None
    assert (recipe.seed, finetune.lr, recipe.name) == (10, 0.001, "1:30")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yaml: cannot be read: No such file"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="cannot be read: Is a directory"):
        load_recipe(tmp_path)
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot be read: not UTF-8 text"):
        load_recipe(tmp_path / "r.yaml")


def test_a_path_may_be_text(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(make_recipe()))
    assert load_recipe(str(tmp_path / "r.yaml"), check_files=False) == load_recipe(
        tmp_path / "r.yaml", check_files=False
    )


def test_a_star_in_quotes_is_every_layer(tmp_path: Path) -> None:
    assert load(tmp_path, make_recipe(), ["quantize.float_layers='*'"]).find_step(QuantizeStep) is not None


def test_overrides(tmp_path: Path) -> None:
    recipe = load(
        tmp_path,
        make_recipe(),
        ["steps.prune.align=16", "finetune.epochs=7", "quantize.pact.enabled=false", "gates.speedup=1.5", "seed=9"],
    )
    prune, finetune, quantize = (recipe.find_step(kind) for kind in (PruneStep, FinetuneStep, QuantizeStep))
    assert prune == PruneStep.model_validate({"target": {"macs": 0.6}, "align": 16, "criterion": "l1"})
    assert finetune == FinetuneStep(epochs=7)
    assert isinstance(quantize, QuantizeStep)
    assert (quantize.pact.enabled, quantize.pact.l2) == (False, 0.01)
    assert (recipe.gates.speedup, recipe.seed) == (1.5, 9)


def test_test_sets_have_names_and_gates(tmp_path: Path) -> None:
    found = load(
        tmp_path, with_tests(metric_drop={"val": 0, "lines": 0.5}, metric_min=0.5, worst_set={"accuracy": 0.1})
    )
    here = tmp_path.resolve()
    assert {name: [path.resolve() for path in paths] for name, paths in found.data.test.items()} == {
        "lines": [here / "v.txt"],
        "street": [here / "v.txt", here / "t.txt"],
    }
    assert found.gates.as_dict() == {
        "metric_drop.val": 0,
        "metric_drop.lines": 0.5,
        "metric_min": 0.5,
        "worst_set.accuracy": 0.1,
    }


def test_the_only_test_set_is_called_test(tmp_path: Path) -> None:
    (tmp_path / "more.txt").touch()
    found = load(
        tmp_path,
        make_recipe(data={"train": "t.txt", "val": "v.txt", "test": "t.txt"}, gates={"metric_drop": {"test": 0.1}}),
    )
    assert list(found.data.test) == ["test"]
    found = load(tmp_path, with_tests(), [f"data.test.lines={tmp_path / 'more.txt'}", "gates.metric_min.lines=0.4"])
    assert found.data.test["lines"] == (tmp_path / "more.txt",)
    assert found.gates.as_dict() == {"metric_min.lines": 0.4}
    assert load(tmp_path, make_recipe()).data.test == {}


def test_paths_in_overrides_start_where_you_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for name in ("a.txt", "b.txt"):
        (here / name).touch()
    recipe = load(tmp_path, make_recipe(), ["data.train=[a.txt, b.txt]", "data.val=b.txt", "out=results"])
    assert [os.fspath(path) for path in recipe.data.train] == ["a.txt", "b.txt"]
    assert (recipe.data.val, recipe.out) == ((Path("b.txt"),), Path("results"))
    whole = load(tmp_path, make_recipe(), ["data={train: a.txt, val: b.txt}"])
    assert (whole.data.train, whole.data.val) == ((Path("a.txt"),), (Path("b.txt"),))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("prune.algin=8", "--set: prune.algin: unknown key. Did you mean `align`?"),
        ("prune.align=12", "--set: prune.align: got 12. Must be 1, 2, 4 or a multiple of 8."),
        ("finetun.epochs=2", "--set: finetun: unknown key. Did you mean `finetune`?"),
        ("epochs=2", "--set: epochs: unknown key."),
        ("data.vall=v.txt", "--set: data.vall: unknown key. Did you mean `val`?"),
        ("model=nowhere.onnx", "--set: model: nowhere.onnx: no such file."),
        ("seed", '--set: seed: got "seed". Must be key=value, the value in YAML. Use e.g. prune.align=8.'),
        ("=3", "Must be key=value"),
        ("data..val=3", "Must be key=value"),
        ("data.train=[a", "Must be key=value"),
        (
            "quantize.float_layers=*",
            '--set: quantize.float_layers: got "*", which YAML takes for a sign of its own. Use quantize.float',
        ),
        ("seed.deep=1", "--set: seed.deep: `seed` is 3, which holds no keys. Set `seed` itself."),
    ],
)
def test_wrong_overrides(tmp_path: Path, override: str, words: str) -> None:
    found = problems(tmp_path, make_recipe(seed=3), [override])
    assert any(words in line for line in found), found


def test_override_of_a_step_that_is_not_there(tmp_path: Path) -> None:
    data = make_recipe(steps=[{"quantize": {}}])
    assert problems(tmp_path, data, ["finetune.epochs=2"]) == [
        "--set: finetune.epochs: the recipe has no such step. It has: quantize. Add the step to the file."
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("abc:./", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(Recipe.model_fields)), inner),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from([*Recipe.model_fields, "prune", "other"]), JSON))
def test_no_content_breaks_the_check(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> None:
    """Whatever a file holds, the answer is a recipe or a RecipeError."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    with pytest.raises(RecipeError):
        load_recipe(path)


@given(st.sampled_from([*Recipe.model_fields, "prune.target", "steps.prune", "data.val"]), st.text(max_size=12))
def test_no_override_breaks_the_check(tmp_path_factory: pytest.TempPathFactory, key: str, value: str) -> None:
    path = tmp_path_factory.getbasetemp() / "good.yaml"
    if not path.exists():
        path.write_text(yaml.safe_dump(make_recipe()), encoding="utf-8")
    with contextlib.suppress(RecipeError):
        load_recipe(path, [f"{key}={value}"], check_files=False)


def test_a_scan_of_a_detector_at_a_smaller_side(tmp_path: Path) -> None:
    recipe = load(tmp_path, make_recipe(task={"kind": "detection"}, steps=[{"sensitivity": {"side": 640}}]))
    step = recipe.find_step(SensitivityStep)
    assert step is not None
    assert (step.side, recipe.task.side, recipe.compare.images) == (640, 1280, 8)


def test_what_lists_may_be(tmp_path: Path) -> None:
    """The folder that paths lead into is found from the recipe, like every path in it."""
    data = load(tmp_path, make_recipe()).data
    assert (data.max_skipped, data.root, data.allow_overlap) == (0.01, None, False)
    given = {"train": "t.txt", "val": "v.txt", "max_skipped": 0, "root": "..", "allow_overlap": True}
    data = load(tmp_path, make_recipe(data=given)).data
    assert (data.max_skipped, data.root, data.allow_overlap) == (0.0, tmp_path.parent, True)


def test_what_overlap_may_be_allowed_is_told_in_full() -> None:
    """As `may_share` has it: validation with what is learned from, and test sets with all three."""
    said = str(DataSettings.model_fields["allow_overlap"].description)
    assert all(word in said for word in ("`val`", "`train`", "`unlabelled`", "test sets"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_skipped": 1.5}, "data.max_skipped: got 1.5. Must be a share in [0, 1]. Use e.g. 0.01."),
        ({"root": "gone"}, "no such file. Use --set data.root=PATH."),
        ({"allow_overlap": 1}, "data.allow_overlap: got 1. Must be true or false."),
    ],
)
def test_lists_that_may_be_anything(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    (line,) = problems(tmp_path, make_recipe(data={"train": "t.txt", "val": "v.txt", **given}))
    assert said in line


def test_whether_a_space_follows_is_the_preset_s_unless_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()

    def options(**task: Any) -> dict[str, Any]:
        given = {"kind": "recognition", "charset": "v.txt", **task}
        return load(tmp_path, make_recipe(task=given, data={"train": "db", "val": "db"})).task.options

    assert "use_space" not in options()
    assert "use_space" not in options(preset="doctr")
    assert options(preset="doctr", use_space=True)["use_space"] is True
    assert options(use_space=False)["use_space"] is False
