"""What is told by a file alone: its kind, and the size of its images."""

import math
import re
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from compress.cli import app
from compress.data.synthetic import write_dataset
from compress.errors import CompressError, DataError, ModelError
from compress.measure.session import Session
from compress.pipeline.diagnosis import check_normalisation
from compress.pipeline.facts import (
    ModelFacts,
    form_of,
    guess_kind,
    image_shape,
    look_at,
    shape_for,
    size_said,
    takes_several,
)
from compress.pipeline.guessing import Guess, choose_kind, complete, find_boxes, find_names, guess_task
from compress.pipeline.normalisation import inner_normalisation
from compress.pipeline.tasks import make_task
from compress.zoo import models_folder


def model_of(path: Path, text: str) -> Path:
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> tiny {text}'), path)
    return path


POOLED = "p = GlobalAveragePool(x) f = Flatten(p) y = Softmax(f)"
SUM_OF_LEVELS = """s = Constant<value = float[4] {1.0, 1.0, 2.0, 2.0}>()
    a = MaxPool<kernel_shape = [32, 32], strides = [32, 32]>(x)
    b = MaxPool<kernel_shape = [16, 16], strides = [16, 16]>(x) u = Resize<mode = "nearest", nearest_mode = "floor",
    coordinate_transformation_mode = "asymmetric">(a, , s) d = Add(u, b) y = ReduceMean<axes = [1]>(d)"""


class TestSize:
    @pytest.mark.parametrize(
        ("given", "fed"),
        [
            ("N, 3, 40, 120", (3, 40, 120)),
            ("N, 3, 48, W", (3, 48, 192)),
            ("N, 1, H, W", (1, 48, 192)),
            ("N, 40, 120, 3", (3, 40, 120)),
            ("N, H, W, 1", (1, 48, 192)),
            ("N, C, H, W", (3, 48, 192)),
        ],
    )
    def test_what_the_file_leaves_open_is_the_kinds_own(self, given: str, fed: tuple[int, ...], tmp_path: Path) -> None:
        last = given.endswith((" 3", " 1")) and not given.startswith(("N, 3", "N, 1"))
        body = f"t = Transpose<perm = [0, 3, 1, 2]>(x) {POOLED.replace('(x)', '(t)')}" if last else POOLED
        facts = look_at(model_of(tmp_path / "m.onnx", f"(float[{given}] x) => (float[N, 2] y) {{ {body} }}"))
        assert facts.fed == fed
        assert bool(size_said(facts)) == (None in facts.input[1:])

    def test_a_detector_gets_multiples_of_32(self, tmp_path: Path) -> None:
        """Its kind is not known before it has run, and it does not run on the classifier's 48 x 192."""
        body = f"{SUM_OF_LEVELS}"
        facts = look_at(model_of(tmp_path / "m.onnx", f"(float[N, 3, H, W] x) => (float[N, 1, h, w] y) {{ {body} }}"))
        assert (guess_kind(facts.output), facts.fed) == ("detection", (3, 640, 640))
        assert size_said(facts) == (
            f"{tmp_path / 'm.onnx'}: input [?, 3, ?, ?], looked at with 3 x 640 x 640: its output [?, 1, ?, ?] is that "
            "of detection. For another size: --input C,H,W."
        )

    def test_another_usual_size_where_its_own_does_not_fit(self, tmp_path: Path) -> None:
        """Rows of 48 pixels are joined into one step."""
        body = """s = Constant<value = int64[3] {0, 144, -1}>() r = Reshape(x, s) y = Transpose<perm = [0, 2, 1]>(r)"""
        facts = look_at(model_of(tmp_path / "m.onnx", f"(float[N, 3, 48, W] x) => (float[N, T, 144] y) {{ {body} }}"))
        assert facts.fed == (3, 48, 320)
        assert image_shape(facts, "recognition", None) == (3, 48, 320)
        assert image_shape(facts, "recognition", (3, 48, 100)) == (3, 48, 100)

    def test_no_size_fits(self, tmp_path: Path) -> None:
        body = "s = Constant<value = int64[2] {7, 11}>() y = Reshape(x, s)"
        facts = look_at(model_of(tmp_path / "m.onnx", f"(float[N, 3, H, W] x) => (float[7, 11] y) {{ {body} }}"))
        assert facts.fed is None
        assert "onnxruntime fails on float32 images of shape [1, 3, 48, 192]" in facts.problem

    def test_for_a_stage(self, tmp_path: Path) -> None:
        text = "(float[N, 48, W, 3] x) => (float[N, 2] y) { t = Transpose<perm = [0, 3, 1, 2]>(x) "
        model = onnx.load(model_of(tmp_path / "m.onnx", f"{text}{POOLED.replace('(x)', '(t)')} }}"))
        assert shape_for(model, (3, 48, 64)) == (3, 48, 64)
        assert shape_for(model, None, (3, 48, 64)) == (3, 48, 64)
        assert shape_for(model, None) == (3, 48, 192)


class TestTask:
    def test_by_the_file(self, tmp_path: Path) -> None:
        model = model_of(tmp_path / "m.onnx", f"(float[N, 3, 40, W] x) => (float[N, 2] y) {{ {POOLED} }}")
        guess = guess_task(str(model), None, None, "sensitivity")
        assert (guess.kind, guess.input_shape) == ("classification", (3, 40, 192))
        assert guess.said[0].endswith("taken for classification. If it is not: --task KIND.")
        assert guess_task(str(model), "classification", None, "sensitivity") == Guess("classification", (3, 40, 192))
        assert guess_task(str(model), "recognition", None, "sensitivity").input_shape == (3, 40, 320)

    def test_its_own_size_is_left_to_the_task(self, tmp_path: Path) -> None:
        model = model_of(tmp_path / "m.onnx", f"(float[N, 3, H, W] x) => (float[N, 2] y) {{ {POOLED} }}")
        assert guess_task(str(model), None, None, "sensitivity").input_shape is None

    def test_what_the_user_says_holds(self) -> None:
        with pytest.raises(ModelError, match=r"none\.onnx"):
            guess_task("none.onnx", "detection", (3, 64, 64), "prune")
        assert guess_task("none.onnx", "mine:Task", None, "prune") == Guess("mine:Task")
        assert guess_task("mine:factory", None, None, "prune") == Guess("classification")

    def test_what_cannot_be_told_is_asked_for_with_the_command(self, tmp_path: Path) -> None:
        model = model_of(tmp_path / "m.onnx", "(float[N, 3, H, W] x) => (float[N, 3, H, W] y) { y = Relu(x) }")
        with pytest.raises(CompressError, match=r"Use: compress quantize .*m\.onnx --task detection \.\.\.$"):
            guess_task(str(model), None, None, "quantize")

    def test_no_images(self, tmp_path: Path) -> None:
        model = model_of(tmp_path / "m.onnx", "(float[N, 9] x) => (float[N, 9] y) { y = Relu(x) }")
        with pytest.raises(ModelError, match=r"input shape \[\?, 9\]. Expected \[N, 3, H, W\]"):
            guess_task(str(model), None, None, "quantize")


class TestLayout:
    """Of a recogniser that returns the mean of each column."""

    TEXT = "(float[{batch}, 3, 32, W] x) => (float[A, B, 3] y) {{ m = ReduceMean<axes = [2], keepdims = 0>(x) {end} }}"

    @pytest.mark.parametrize("batch", ["N", "1"])
    @pytest.mark.parametrize(("order", "layout"), [("2, 0, 1", "tnk"), ("0, 2, 1", None)])
    def test_by_two_images(self, tmp_path: Path, batch: str, order: str, layout: str | None) -> None:
        end = f"t = Transpose<perm = [{order}]>(m) y = Softmax(t)"
        model = model_of(tmp_path / "m.onnx", self.TEXT.format(batch=batch, end=end))
        guess = guess_task(str(model), None, None, "evaluate", {"preset": None, "blank": "last"})
        assert guess.processing == {"blank": "last", **({"layout": "tnk"} if layout else {})}
        assert any("taken for --layout tnk" in line for line in guess.said) == (layout is not None)
        assert look_at(model).steps_first == (layout is not None)

    def test_what_the_user_says_holds(self) -> None:
        facts = ModelFacts(Path("m.onnx"), (None, 3, 32, None), (None, None, 3), steps_first=True)
        assert complete(facts, "recognition", {"layout": "ntk"}, b"", None) == (facts, {"layout": "ntk"}, ())
        assert complete(facts, "classification", {"layout": None}, b"", None) == (facts, {}, ())


class TestOutputs:
    """What a model returns is seen, where the user does not say it and its preset says something else."""

    @pytest.mark.parametrize(
        ("end", "preset", "found"),
        [
            ("Softmax(f)", None, None),
            ("Identity(f)", None, "logits"),
            ("LogSoftmax(f)", None, "log_probabilities"),
            ("Softmax(f)", "easyocr", "probabilities"),
            ("Identity(f)", "easyocr", None),
        ],
    )
    def test_of_classes(self, end: str, preset: str | None, found: str | None, tmp_path: Path) -> None:
        body = f"m = ReduceMean<axes = [2], keepdims = 0>(x) f = Transpose<perm = [0, 2, 1]>(m) y = {end}"
        model = model_of(tmp_path / "m.onnx", f"(float[N, C, 64, W] x) => (float[N, T, 3] y) {{ {body} }}")
        given = {"preset": preset}
        guess = guess_task(str(model), None, (3, 64, 100), "evaluate", given)
        assert guess.processing.get("outputs") == found
        usual = "logits" if preset else "probabilities"
        said = f"{model}: returns {found}, not {usual}: taken for --outputs {found}."
        assert (said in guess.said) == (found is not None)
        named = guess_task(str(model), None, (3, 64, 100), "evaluate", {**given, "outputs": "logits"})
        assert named.processing["outputs"] == "logits"

    @pytest.mark.parametrize(("end", "found"), [("Sigmoid(x)", None), ("Identity(x)", "logits")])
    def test_of_maps(self, end: str, found: str | None, tmp_path: Path) -> None:
        model = model_of(tmp_path / "m.onnx", f"(float[N, 1, H, W] x) => (float[N, 1, H, W] y) {{ y = {end} }}")
        gray = {"preprocess": {"color": "gray"}}
        assert guess_task(str(model), None, (1, 64, 64), "evaluate", gray).processing.get("outputs") == found
        logits = guess_task(str(model), None, (1, 64, 64), "evaluate", {**gray, "preset": "doctr"})
        assert "outputs" not in logits.processing

    def test_values_that_say_nothing(self) -> None:
        assert form_of(np.full((1, 2), np.nan)) is None
        assert form_of(np.zeros((1, 0))) is None
        assert form_of(np.array([["a"]])) is None

    @pytest.mark.parametrize("shape", [(1, 1, 4, 4), (1, 9, 4)])
    def test_probabilities_that_are_rounded(self, shape: tuple[int, ...]) -> None:
        """Maps resized by cubic curves go a little beyond 0 and 1, rows in steps of 1/256 do not sum to 1."""
        values = np.linspace(-0.02, 1.03, math.prod(shape)).reshape(shape)
        assert form_of(values) is None
        assert form_of(3 * values) == "logits"

    def test_the_first_of_several_is_read(self, tmp_path: Path) -> None:
        two = "(float[N, 3, 40, 120] x) => (float[N, 2] y, float[N, 3, A, B] p)"
        model = model_of(tmp_path / "m.onnx", f"{two} {{ {POOLED} }}")
        line = f"{model}: returns y, p: the first is read. For another, export it first."
        assert line in guess_task(str(model), None, None, "evaluate").said


class TestHeight:
    """Of recognisers that sum or average each column: the more rows are summed, the surer."""

    TEXT = """(float[N, 3, H, W] x) => (float[N, T, 3] y) { a = Constant<value = int64[1] {2}>() m = {reduce}
        c = Constant<value = float {0.02}>() s = Mul(m, c) t = Transpose<perm = [0, 2, 1]>(s) y = Softmax(t) }"""
    SUM, MEAN = "ReduceSum<keepdims = 0>(x, a)", "ReduceMean<axes = [2], keepdims = 0>(x)"

    @pytest.fixture
    def files(self, tmp_path: Path) -> list[Path]:
        crop = np.zeros((20, 40, 3), np.uint8)
        crop[..., 1] = 255
        paths = [tmp_path / f"{number}.png" for number in range(3)]
        assert all(cv2.imwrite(str(path), crop) for path in paths)
        return paths

    def model(self, tmp_path: Path, reduce: str) -> Path:
        return model_of(tmp_path / "m.onnx", self.TEXT.replace("{reduce}", reduce))

    def test_where_it_is_surest(self, tmp_path: Path, files: list[Path]) -> None:
        model = self.model(tmp_path, self.SUM)
        guess = guess_task(str(model), "recognition", None, "evaluate", {}, lambda: files)
        assert guess.input_shape == (3, 48, 320)
        read = "surer of what it reads at 48 (0.77) than at 32 (0.64), on 3 images"  # softmax of 48 and 32 times .02
        assert guess.said == (f"{model}: leaves its height open, and is {read}. For another: --input C,H,W.",)

    @pytest.mark.parametrize("given", [(3, 32, 320), None])
    def test_the_users_and_the_usual_one_stay(
        self, tmp_path: Path, files: list[Path], given: tuple[int, int, int] | None
    ) -> None:
        reduce = self.SUM if given else self.MEAN
        guess = guess_task(str(self.model(tmp_path, reduce)), None, given, "evaluate", {}, lambda: files)
        assert (guess.input_shape, len(guess.said)) == (given, 1)

    @pytest.mark.parametrize("unreadable", [[], [Path("none.png")]])
    def test_without_images(self, tmp_path: Path, unreadable: list[Path]) -> None:
        model = self.model(tmp_path, self.MEAN)
        assert guess_task(str(model), None, None, "evaluate", {}, lambda: unreadable).input_shape is None

    def test_of_one_width(self, tmp_path: Path, files: list[Path]) -> None:
        model = self.model(tmp_path, self.SUM)
        fixed = onnx.load(model)
        fixed.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 320
        onnx.save(fixed, model)
        guess = guess_task(str(model), "recognition", None, "evaluate", {}, lambda: files)
        assert guess.input_shape == (3, 48, 320)

    def test_channels_that_do_not_fit_are_named(self, tmp_path: Path, files: list[Path]) -> None:
        model = model_of(tmp_path / "m.onnx", self.TEXT.replace("{reduce}", self.SUM).replace("N, 3, H", "N, 1, H"))
        with pytest.raises(DataError, match=r"got 1 channels\. Must be 3.*preprocess.color gray"):
            guess_task(str(model), "recognition", None, "evaluate", {}, lambda: files)
        gray = {"preprocess": {"color": "gray", "mean": 0.5, "std": 0.5}}
        assert guess_task(str(model), "recognition", None, "evaluate", gray, lambda: files).kind == "recognition"


def test_a_detector_of_fixed_size_is_fed_padded_scenes(tmp_path: Path) -> None:
    model = model_of(tmp_path / "m.onnx", "(float[N, 1, 32, 32] x) => (float[N, 1, 32, 32] y) { y = Sigmoid(x) }")
    guess = guess_task(str(model), None, None, "evaluate", {"preprocess": {"color": "gray"}})
    assert guess.processing == {"preprocess": {"color": "gray", "resize": "pad"}}
    assert guess.said[1].startswith(f"{model}: input [?, 1, 32, 32]: scenes are shrunk to this size, ratio kept")
    both = guess_task(str(model), "detection", (1, 32, 32), "evaluate", {"preprocess": {"color": "gray"}})
    assert both.processing == guess.processing
    stretched = guess_task(str(model), None, None, "evaluate", {"preprocess": {"resize": "stretch"}})
    assert stretched.processing == {"preprocess": {"resize": "stretch"}}
    assert len(stretched.said) == 1


@pytest.mark.parametrize(
    ("arithmetic", "scale", "offset"),
    [
        ("c = Constant<value = float {255.0}>() y = Div(x, c)", (1 / 255,), (0.0,)),
        (
            "c = Constant<value = float[1, 3, 1, 1] {1.0, 2.0, 3.0}>() d = Constant<value = float {0.01}>() "
            "a = Sub(x, c) y = Mul(d, a)",
            (0.01, 0.01, 0.01),
            (-0.01, -0.02, -0.03),
        ),
        ("c = Constant<value = float[1] {1.0}>() i = Identity(x) y = Sub(c, i)", (-1.0,), (1.0,)),
        ("c = Constant<value = float[1] {0.5}>() t = Transpose<perm = [0, 1, 2, 3]>(x) y = Add(t, c)", (1.0,), (0.5,)),
    ],
)
def test_arithmetic_that_a_model_begins_with(
    arithmetic: str, scale: tuple[float, ...], offset: tuple[float, ...], tmp_path: Path
) -> None:
    text = f"(float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] z) {{ {arithmetic} z = Relu(y) }}"
    found = inner_normalisation(model_of(tmp_path / "m.onnx", text))
    assert found is not None
    np.testing.assert_allclose(found.scale, scale, rtol=1e-6)
    np.testing.assert_allclose(found.offset, offset, rtol=1e-6)
    images = np.random.default_rng(0).uniform(0, 255, (1, 3, 8, 8)).astype(np.float32)
    wanted = np.reshape(scale, (1, -1, 1, 1)) * images + np.reshape(offset, (1, -1, 1, 1))
    np.testing.assert_allclose(Session(tmp_path / "m.onnx").run(images), np.maximum(wanted, 0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "begins",
    [
        "y = Relu(x)",
        "c = Constant<value = float {255.0}>() y = Div(c, x)",
        "c = Constant<value = float[8] {1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0}>() y = Div(x, c)",
        "y = Mul(x, x)",
        "c = Constant<value = float {255.0}>() a = Div(x, c) y = Add(a, x)",
    ],
)
def test_what_is_no_normalisation(begins: str, tmp_path: Path) -> None:
    text = f"(float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] z) {{ {begins} z = Relu(y) }}"
    assert inner_normalisation(model_of(tmp_path / "m.onnx", text)) is None


class TestAModelThatNormalisesItsImages:
    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        """The classifier that ships, fed values from 0 to 255."""
        plain = onnx.load(models_folder() / "direction_classifier.onnx")
        name = plain.graph.input[0].name
        for node in plain.graph.node:
            for place, given in enumerate(node.input):
                if given == name:
                    node.input[place] = "normalised"
        for key, value in (("half", 127.5), ("one", 1.0)):
            plain.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), key))
        for made in (("Sub", ["divided", "one"], "normalised"), ("Div", [name, "half"], "divided")):
            plain.graph.node.insert(0, onnx.helper.make_node(made[0], made[1], [made[2]]))
        onnx.save(plain, tmp_path / "own.onnx")
        return tmp_path / "own.onnx"

    def test_it_is_fed_pixels_which_is_said(self, model: Path) -> None:
        guess = guess_task(str(model), None, None, "evaluate")
        assert guess.processing == {"preprocess": {"mean": 0.0, "std": 0.0039215686, "pad_value": 127.5}}
        words = (
            "normalises images itself (0.007843 x - 1): fed values from 0 to 255, --preprocess mean=0 --preprocess std="
        )
        assert words in guess.said[-1]

    def test_what_the_user_says_holds(self, model: Path) -> None:
        given = {"preprocess": {"mean": 0.5, "std": 0.5}}
        assert guess_task(str(model), None, None, "evaluate", given).processing == given

    def test_it_scores_as_the_plain_one(self, model: Path, tmp_path: Path) -> None:
        labels = write_dataset(tmp_path / "crops", 24, 0)
        found = []
        for file in (models_folder() / "direction_classifier.onnx", model):
            result = CliRunner().invoke(app, ["evaluate", str(file), "--data", str(labels), "--threads", "1"])
            assert result.exit_code == 0, result.output
            found.append(re.findall(r"accuracy [\d.]+", result.output))
        assert found[0] == found[1] != []

    def test_a_recipe_that_normalises_as_well_is_told(self, model: Path, tmp_path: Path) -> None:
        labels = write_dataset(tmp_path / "crops", 8, 0)
        task = make_task("classification", train=[], val=[labels], input_shape=(3, 48, 192), directions=True)
        said: list[str] = []
        check_normalisation(model, task, said.append)
        assert (
            "is fed values up to 1. Was it trained so? For values from 0 to 255 set task.preprocess: {mean: 0"
            in said[0]
        )
        assert "pad_value: 127.5}" in said[0]
        check_normalisation(models_folder() / "direction_classifier.onnx", task, said.append)
        pixels = {"mean": 0.0, "std": 0.0039215686, "pad_value": 127.5}
        task = make_task(
            "classification", train=[], val=[labels], input_shape=(3, 48, 192), directions=True, preprocess=pixels
        )
        check_normalisation(model, task, said.append)
        assert len(said) == 1


def test_inference_yml_beside_a_model(tmp_path: Path) -> None:
    recogniser = model_of(tmp_path / "m.onnx", "(float[N, 3, 48, W] x) => (float[N, 3, 48, W] y) { y = Relu(x) }")
    file = tmp_path / "inference.yml"
    file.write_text("PostProcess: {character_dict: [a, b]}")
    said = f"{file}: holds its charset. For another: --charset FILE."
    assert find_names(recogniser, "recognition", None, None) == (file, None, said)
    assert find_names(recogniser, "recognition", file, None) == (file, None, "")
    assert find_boxes(recogniser, "recognition") == ({}, "")
    file.write_text("PostProcess: {Topk: {label_list: [0_degree, 180_degree]}}")
    labels = find_names(recogniser, "classification", None, None)
    said = f"{file}: holds the names of its classes: 0, 180. For others: --labels NAMES."
    assert labels == (None, ("0", "180"), said)
    assert find_names(recogniser, "recognition", None, None) == (None, None, "")
    file.write_text("PostProcess: {thresh: 0.2, box_thresh: 0.6, unclip_ratio: 1.4}")
    found, said = find_boxes(recogniser, "detection", {"threshold": 0.25, "unclip_ratio": None})
    assert found == {"box_threshold": 0.6, "unclip_ratio": 1.4}
    taken = f"{file}: unclip_ratio 1.4, taken for its post-processing."
    assert said == f"{taken} For files made of it elsewhere: --unclip-ratio 1.4."


def test_inference_yml_of_another_model_in_the_folder(tmp_path: Path) -> None:
    model = model_of(tmp_path / "m.onnx", "(float[N, 3, 48, W] x) => (float[N, 3, 48, W] y) { y = Relu(x) }")
    file = tmp_path / "inference.yml"
    file.write_text("PostProcess: {Topk: {label_list: ['0', '90', '180', '270']}, character_dict: [a, b]}")
    said = f"Not used: {file}: 4 labels do not make the model's 2 classes."
    assert find_names(model, "classification", None, None, 2) == (None, None, said)
    assert find_names(model, "classification", None, None, 4)[1] == ("0", "90", "180", "270")
    said = f"Not used: {file}: 2 characters do not make the model's 9 classes."
    assert find_names(model, "recognition", None, None, 9) == (None, None, said)
    assert find_names(model, "recognition", None, None, 4)[0] == file


def test_an_inference_yml_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    model = model_of(tmp_path / "m.onnx", "(float[N, 3, 48, W] x) => (float[N, 3, 48, W] y) { y = Relu(x) }")
    (tmp_path / "inference.yml").write_text("- something else")
    said = f"Not used: {tmp_path / 'inference.yml'}: no PostProcess, as PaddleOCR's inference.yml has."
    assert find_names(model, "recognition", None, None) == (None, None, said)
    assert find_names(model, "classification", None, None) == (None, None, said)
    assert find_boxes(model, "detection") == ({}, said)


def test_names_that_a_file_holds(tmp_path: Path) -> None:
    path = model_of(tmp_path / "m.onnx", f"(float[N, 3, 40, W] x) => (float[N, 2] y) {{ {POOLED} }}")
    model = onnx.load(path)
    model.metadata_props.add(key="character", value="up\ndown")
    onnx.save(model, path)
    _, labels, said = find_names(path, "classification", None, None)
    assert labels == ("up", "down")
    assert said == f"{path}: holds the names of its classes: up, down. For others: --labels NAMES."
    assert find_names(path, "classification", None, ["a", "b"]) == (None, ["a", "b"], "")
    assert find_names(path, "detection", None, None) == (None, None, "")
    assert find_names(path, "recognition", None, None)[0] == path
    assert find_names("package.module:make", "classification", None, None) == (None, None, "")


def test_facts_of_a_single_image(tmp_path: Path) -> None:
    model = model_of(tmp_path / "m.onnx", f"(float[1, 3, H, W] x) => (float[1, 2] y) {{ {POOLED} }}")
    assert look_at(model).input[0] == 1
    assert takes_several(model)


def test_a_preset_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^preset: got 'paddle'\. Must be one of ppocr, doctr"):
        look_at(tmp_path / "model.onnx", preset="paddle")


def test_a_side_is_refused_where_scenes_have_one_size(tmp_path: Path) -> None:
    """It would be ignored."""
    with pytest.raises(CompressError, match=r"^--side: scenes are of the input's size \(resize: pad\)\. Remove it\.$"):
        make_task("detection", train=(), val=(tmp_path,), preprocess={"resize": "pad"}, side=640)


def test_a_class_of_the_users_own_is_for_other_commands() -> None:
    facts = ModelFacts(Path("m.onnx"), (None, 3, None, None), (None, 2), fed=(3, 8, 8))
    with pytest.raises(
        CompressError, match=r"--task: got 'mine:Task'\. Must be .* own is for .* evaluate, sensitivity"
    ):
        choose_kind(facts, "mine:Task")
