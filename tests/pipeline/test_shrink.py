"""What `compress shrink` decides and foretells: kinds by shapes, the recipe, stages, and seconds."""

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from compress.artifacts import lock
from compress.data.headers import Header
from compress.data.synthetic import write_dataset
from compress.data.unlabelled import split_images
from compress.errors import CompressError, DataError, ModelError, OutputError, RecipeError
from compress.graph import from_torch, save_model
from compress.pipeline.facts import ModelFacts, guess_kind, look_at
from compress.pipeline.guessing import choose_kind, find_names
from compress.pipeline.labelling import TRAIN_SIDE
from compress.pipeline.preparing import made_crops, recipe_file, recipe_parts, shrink_cost, shrinking
from compress.pipeline.preparing.families import FAMILIES, default_epochs
from compress.pipeline.preparing.recipe_parts import Wishes, default_steps
from compress.pipeline.preparing.shrink_cost import Pace, Work, count_work, plan_lines, stage_seconds
from compress.pipeline.preparing.shrinking import STAGES, shrink_recipe
from compress.pipeline.state import holds_results
from compress.recipe import FinetuneStep, PruneStep, QuantizeStep, Recipe, ReconstructStep, SensitivityStep, load_recipe
from tests.pipeline import tiny

ZOO = Path(__file__).parents[2] / "compress" / "zoo" / "models"
OPEN = (None, 3, None, None)
OUTPUTS: dict[str, tuple[int | None, ...]] = {
    "classification": (None, 2),
    "recognition": (None, None, 96),
    "detection": (None, 1, None, None),
}


def written(folder: Path, kind: str, images: int = 500, facts: ModelFacts | None = None, **wishes: Any) -> Recipe:
    """The recipe for a folder of so many images, through its YAML."""
    facts = facts or ModelFacts(ZOO / "direction_classifier.onnx", OPEN, OUTPUTS[kind])
    if kind == "recognition":
        wishes.setdefault("charset", ZOO / "latin.txt")
    wishes = {"rendered": 0, "spliced": 0} | wishes
    (folder / "crops").mkdir(exist_ok=True)
    files = sorted((folder / "crops").iterdir())
    content = shrink_recipe(facts, folder / "crops", images, Wishes(kind, **wishes))
    return recipe_file.write_recipe(
        content,
        folder / "run",
        "compress shrink ...",
        draw=lambda: made_crops.make_crops(folder / "run", Wishes(kind, **wishes), files, 0.25),
    )


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("direction_classifier", "classification"),
        ("text_recogniser", "recognition"),
        ("text_detector", "detection"),
    ],
)
def test_kinds_of_the_models_that_ship(model: str, kind: str) -> None:
    facts = look_at(ZOO / f"{model}.onnx")
    assert choose_kind(facts, None)[0] == kind
    assert facts.output[-1] == OUTPUTS[kind][-1]


def model_of(path: Path, text: str) -> Path:
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> tiny {text}'), path)
    return path


def test_a_file_that_does_not_say_its_output_is_run_once(tmp_path: Path) -> None:
    kept = "c = Constant<value = bool[3] {1, 0, 0}>() y = Compress<axis = 1>(x, c)"
    facts = look_at(model_of(tmp_path / "m.onnx", f"(float[N, 3, 64, W] x) => (float[A, B, C, D] y) {{ {kept} }}"))
    found = ModelFacts(tmp_path / "m.onnx", (None, 3, 64, None), (1, 1, 64, 640), (3, 64, 640))
    assert facts == dataclasses.replace(found, returns="logits", outputs=("y",))
    assert choose_kind(facts, None) == (
        "detection",
        f"{tmp_path / 'm.onnx'}: output [1, 1, 64, 640], taken for detection. If it is not: --task KIND.",
    )


def test_a_height_that_a_window_does_not_fit_in_is_passed_over(tmp_path: Path) -> None:
    body = """p = AveragePool<kernel_shape = [40, 2], strides = [40, 2]>(x) s = Squeeze(p, axes)
        y = Transpose<perm = [0, 2, 1]>(s)"""
    axes = "<int64[1] axes = {2}>"
    model = model_of(tmp_path / "m.onnx", f"(float[N, 3, H, W] x) => (float[A, B, C] y) {axes} {{ {body} }}")
    assert look_at(model).fed == (3, 48, 320)
    assert look_at(model, (3, 32, 100)).fed == (3, 32, 100)


def test_the_size_is_that_of_the_output_seen_not_of_the_one_declared(tmp_path: Path) -> None:
    body = "t = Transpose<perm = [3, 0, 1, 2]>(x) y = Squeeze(t, axes)"
    model = model_of(
        tmp_path / "m.onnx", f"(float[1, 1, 64, W] x) => (float[A, C] y) <int64[1] axes = {{2}}> {{ {body} }}"
    )
    facts = look_at(model)
    assert (facts.fed, facts.output) == ((1, 64, 320), (320, 1, 64))
    assert choose_kind(facts, None)[0] == "recognition"


def test_an_output_of_no_kind(tmp_path: Path) -> None:
    model = model_of(tmp_path / "m.onnx", "(float[N, 3, H, W] x) => (float[N, 3, H, W] y) { y = Relu(x) }")
    facts = look_at(model)
    with pytest.raises(CompressError, match=r"^--task: cannot be determined from .*m\.onnx's output \[1, 3, 48"):
        choose_kind(facts, None)
    assert choose_kind(facts, "detection") == ("detection", "")
    with pytest.raises(CompressError, match=r"^--task: got 'segment'. Must be classification, recognition, "):
        choose_kind(facts, "segment")


def test_a_model_of_other_things_than_images(tmp_path: Path) -> None:
    model = model_of(tmp_path / "m.onnx", "(float[N, 9] x) => (float[N, 9] y) { y = Relu(x) }")
    with pytest.raises(ModelError, match=r"input shape \[\?, 9\]. Expected \[N, 3, H, W\]"):
        look_at(model)


def test_the_classes_tell_whether_a_space_follows(tmp_path: Path) -> None:
    charset = tmp_path / "c.txt"
    charset.write_text("a\nb\nc\n")
    for classes, use_space in ((5, True), (4, False)):
        facts = ModelFacts(Path("m.onnx"), OPEN, (None, None, classes))
        assert recipe_parts.fits_charset(facts, charset) == (charset, use_space)
    with pytest.raises(DataError, match=r"make 5 classes, but the model's output has 9"):
        recipe_parts.fits_charset(ModelFacts(Path("m.onnx"), OPEN, (None, None, 9)), charset)
    with pytest.raises(CompressError, match=r"^--charset: missing. m\.onnx is a recogniser.*--charset dict\.txt"):
        recipe_parts.fits_charset(ModelFacts(Path("m.onnx"), OPEN, (None, None, 9)), None)


def test_a_charset_in_the_file_is_taken_unless_another_is_given(tmp_path: Path) -> None:
    model = onnx.load(model_of(tmp_path / "m.onnx", "(float[N, 3, H, W] x) => (float[N, 3, H, W] y) { y = Relu(x) }"))
    model.metadata_props.add(key="character", value="a\nb\nc")
    onnx.save(model, tmp_path / "m.onnx")
    facts = ModelFacts(tmp_path / "m.onnx", OPEN, (None, None, 5))
    own, _, said = find_names(facts.path, "recognition", None, None)
    assert said == f"{facts.path}: holds its charset. For another: --charset FILE."
    assert recipe_parts.fits_charset(facts, own) == (tmp_path / "m.onnx", True)
    (tmp_path / "d.txt").write_text("a\nb\nd\n")
    assert find_names(facts.path, "recognition", tmp_path / "d.txt", None) == (tmp_path / "d.txt", None, "")
    with pytest.raises(DataError, match=r"make 5 classes, but the model's output has 9"):
        recipe_parts.fits_charset(dataclasses.replace(facts, output=(None, None, 9)), own)


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match=r"^--images: .*none: no such folder"):
        shrinking.list_files(tmp_path / "none")
    with pytest.raises(DataError, match=r": no images\. Expected"):
        shrinking.list_files(tmp_path)


@pytest.mark.parametrize(("kind", "macs"), [("classification", 0.65), ("recognition", 0.75), ("detection", 0.6)])
def test_defaults(tmp_path: Path, kind: str, macs: float) -> None:
    recipe = written(tmp_path, kind)
    assert [type(step) for step in recipe.steps] == [
        SensitivityStep,
        PruneStep,
        ReconstructStep,
        FinetuneStep,
        QuantizeStep,
    ]
    prune, finetune = recipe.find_step(PruneStep), recipe.find_step(FinetuneStep)
    assert prune is not None
    assert finetune is not None
    assert prune.target.as_dict() == {"macs": macs}
    assert finetune.distill > 0
    assert (recipe.out, recipe.data.images) == (tmp_path / "run", (tmp_path / "crops",))
    shown = load_recipe(tmp_path / "run" / "recipe.yaml")
    assert shown == recipe.model_copy(update={"name": shown.name})


def test_epochs_and_images_held_back_follow_the_folder(tmp_path: Path) -> None:
    epochs = {}
    for images in (10, 500, 20000):
        folder = tmp_path / str(images)
        folder.mkdir()
        recipe = written(folder, "recognition", images)
        finetune, quantize = recipe.find_step(FinetuneStep), recipe.find_step(QuantizeStep)
        assert finetune is not None
        assert quantize is not None
        epochs[images] = (finetune.epochs, quantize.epochs, recipe.data.held_back)
    assert epochs == {10: (60, 10, 0.2), 500: (20, 3, 0.2), 20000: (2, 1, 0.02)}


def test_wishes(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("")
    wishes = {
        "macs": 0.5,
        "epochs": 1,
        "threads": 2,
        "seed": 7,
        "max_drop": 0.02,
        "tests": {"lines": tmp_path / "t.txt"},
    }
    recipe = written(tmp_path, "detection", side=640, input=(3, 64, 96), **wishes)
    prune, finetune = recipe.find_step(PruneStep), recipe.find_step(FinetuneStep)
    assert prune is not None
    assert finetune is not None
    assert (prune.target.macs, finetune.epochs, finetune.warmup_epochs) == (0.5, 1, 0.25)
    assert (recipe.threads, recipe.seed, recipe.gates.as_dict()) == (2, 7, {"metric_drop": 0.02})
    assert recipe.data.test == {"lines": (tmp_path / "t.txt",)}
    assert (recipe.task.side, recipe.task.crop, recipe.task.input) == (640, 64, (3, 64, 96))


@pytest.mark.parametrize(
    ("kind", "processing", "expected"),
    [
        ("recognition", {"preset": "mmocr"}, {"widths": (), "input": (1, 32, 100)}),
        ("recognition", {"preset": "easyocr"}, {"input": (1, 64, 320)}),
        ("detection", {"preset": "doctr"}, {"crop": None, "input": (3, 1024, 1024)}),
        ("detection", {"preset": "mmocr"}, {"side": 960}),
        ("detection", {"preprocess": {"resize": "stretch"}}, {"crop": None}),
        ("classification", {"preset": "doctr"}, {"input": (3, 256, 256)}),
    ],
)
def test_presets(tmp_path: Path, kind: str, processing: dict[str, Any], expected: dict[str, Any]) -> None:
    """A recipe of each can be read: settings that a preset excludes are left out."""
    shape = expected.get("input")
    recipe = written(tmp_path, kind, processing=processing, input=shape)
    for key, value in expected.items():
        assert getattr(recipe.task, key) == value
    scan = recipe.find_step(SensitivityStep)
    assert scan is not None
    assert (scan.side is not None) == (kind == "detection" and recipe.task.processing.resize == "limit")


def test_a_detector_of_fixed_size_is_fed_scenes_of_that_size(tmp_path: Path) -> None:
    fixed = ModelFacts(ZOO / "text_detector.onnx", (None, 3, 640, 640), (None, 1, 640, 640))
    recipe = written(tmp_path, "detection", facts=fixed, processing={"preprocess": {"resize": "pad"}})
    assert recipe.task.input_shape == (3, 640, 640)


def test_sizes_that_a_file_fixes(tmp_path: Path) -> None:
    facts = ModelFacts(ZOO / "text_recogniser.onnx", (None, 3, 48, 100), (None, None, 96))
    recipe = written(tmp_path, "recognition", facts=facts)
    assert (recipe.task.input_shape, recipe.task.widths) == ((3, 48, 100), ())
    three = ModelFacts(ZOO / "text_recogniser.onnx", OPEN, (None, 3))
    (tmp_path / "b").mkdir()
    assert written(tmp_path / "b", "classification", facts=three).task.labels == ("0", "1", "2")
    fixed = ModelFacts(ZOO / "text_detector.onnx", (None, 3, 640, 640), (None, 1, 640, 640))
    with pytest.raises(CompressError, match=r"text_detector\.onnx: input \[\?, 3, 640, 640\] has a fixed size"):
        written(tmp_path, "detection", facts=fixed)
    number = ModelFacts(ZOO / "direction_classifier.onnx", OPEN, (None, 1))
    assert guess_kind(number.output) is None
    with pytest.raises(CompressError, match=r"output \[\?, 1\] is one number an image"):
        written(tmp_path, "classification", facts=number)


@pytest.mark.parametrize("free", [True, False])
def test_a_file_for_one_image_at_a_time(tmp_path: Path, free: bool) -> None:
    """Fine where its graph takes several all the same."""
    body = "p = GlobalAveragePool(x) y = Flatten(p)" if free else "m = ReduceMean<axes = [0, 2, 3]>(x) y = Flatten(m)"
    model = model_of(tmp_path / "m.onnx", f"(float[1, 3, 48, 192] x) => (float[1, 3] y) {{ {body} }}")
    if free:
        assert written(tmp_path, "classification", facts=look_at(model)).task.input_shape == (3, 48, 192)
        return
    with pytest.raises(CompressError, match=r"input \[1, 3, 48, 192\] has a fixed number of images"):
        written(tmp_path, "classification", facts=look_at(model))


def test_another_recipe_in_the_same_folder(tmp_path: Path) -> None:
    written(tmp_path, "classification")
    kept = (tmp_path / "run" / "recipe.yaml").read_bytes()
    (tmp_path / "run" / "sensitivity.json").touch()
    with pytest.raises(CompressError, match=r"recipe\.yaml: of a run with another steps\.prune\.target\.macs\. Use"):
        written(tmp_path, "classification", macs=0.5)
    assert (tmp_path / "run" / "recipe.yaml").read_bytes() == kept
    assert written(tmp_path, "classification", max_drop=0.1, threads=3).threads == 3
    assert written(tmp_path, "classification", max_skipped=0.1).data.max_skipped == 0.1


def test_a_folder_in_which_nothing_was_computed_is_taken_over(tmp_path: Path) -> None:
    """As after an attempt that was refused; the recipe is kept, for the user may have changed it."""
    written(tmp_path, "classification", max_drop=0.1)
    run = tmp_path / "run"
    written(tmp_path, "classification")
    assert not (run / "recipe.old.yaml").exists(), "of the same run"
    kept = (run / "recipe.yaml").read_bytes()
    (run / "original.onnx").touch()
    (run / "labels").mkdir()
    (run / "labels" / "labels.json").touch()
    recipe = written(tmp_path, "classification", macs=0.5)
    prune = recipe.find_step(PruneStep)
    assert prune is not None
    assert prune.target.macs == 0.5
    assert (run / "recipe.old.yaml").read_bytes() == kept
    assert (run / "original.onnx").exists(), "the user may have named it"
    (run / "recipe.yaml").write_text("no recipe")
    assert written(tmp_path, "classification", macs=0.5) == recipe
    with lock(run), pytest.raises(OutputError, match="in use by process"):
        written(tmp_path, "classification", macs=0.6)


def test_the_share_of_unusable_images_is_written_only_where_it_is_given(tmp_path: Path) -> None:
    written(tmp_path, "classification")
    assert "max_skipped" not in (tmp_path / "run" / "recipe.yaml").read_text()
    assert written(tmp_path, "classification", max_skipped=0.2).data.max_skipped == 0.2


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("sensitivity.json", True),
        ("sensitivity.part1.json", True),
        ("pruned.code.json", True),
        ("teacher.checkpoint", True),
        ("int8.onnx", True),
        ("recipe.yaml", False),
        ("original.onnx", False),
        ("labels/labels.json", False),
        ("spliced-9-0/labels.txt", False),
    ],
)
def test_what_takes_long(tmp_path: Path, name: str, holds: bool) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert holds_results(tmp_path) == holds


def test_a_wish_that_no_recipe_may_have(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"task: input: got 1 channels\. Must be 3: .* preprocess\.color gray"):
        written(tmp_path, "classification", input=(1, 48, 192))
    assert list((tmp_path / "run").iterdir()) == []


# --- time -------------------------------------------------------------------------------------------------------

WORK = Work(
    train=80,
    val=20,
    files=100,
    cells=9,
    scan_images=10,
    epochs=5,
    qat_epochs=2,
    reconstructed=256,
    ranked=0,
    area=2.0,
    scan_area=0.5,
    label_area=1.5,
    train_area=0.5,
    loaded_each_time=True,
    calibrated=40,
)
PACE = Pace(load=0.01, forward=0.1, train=0.5, make=0.2)


def test_seconds_are_counts_times_pace() -> None:
    timing = shrink_cost.TIMING_S
    epoch, load, score = 80 * 0.5 * 0.5, 80 * 0.01, 20 * 2.0 * 0.1  # 20 s, 0.8 s, 4 s
    assert stage_seconds(WORK, PACE) == pytest.approx(
        (
            100 * 0.01 + 80 * 1.5 * 0.1 + 20 * 2.0 * 0.1,  # read; label to train; label to score
            10 * (0.2 + 10 * 0.5 * 0.1),  # nine cells and the network as it is
            timing,
            80 * 0.5 * 0.5,
            5 * (epoch + load + score),
            timing
            + 40 * 2.0 * shrink_cost.CALIBRATION_FACTOR * 0.1
            + 2 * (shrink_cost.QAT_FACTOR * epoch + load + score),
            4 * score,
        )
    )


def test_channels_are_ranked_before_the_scan() -> None:
    whole = dataclasses.replace(WORK, ranked=256)
    extra = [a - b for a, b in zip(stage_seconds(whole, PACE), stage_seconds(WORK, PACE), strict=True)]
    assert extra == pytest.approx([0, 80 * 0.5 * 0.5, 0, 0, 0, 0, 0])  # all 80 images, of half the input's area


def test_work_of_a_direction_classifier(tmp_path: Path) -> None:
    work = count_work(written(tmp_path, "classification", 500), 500, [Header(30, 90, "PNG")], 40)
    assert (work.train, work.val, work.scan_images) == (800, 200, 256), "each as it is and turned"
    assert work.ranked == 256
    assert (work.cells, work.epochs, work.qat_epochs) == (40, 40, 7)
    assert (work.area, work.scan_area, work.train_area, work.loaded_each_time) == (1.0, 1.0, 1.0, False)
    assert work.calibrated == 256 + 2 * 2 * 128 + (4 + shrink_cost.CANDIDATES) * 256


def test_drawn_crops_are_learned_from_beside_the_folder_s(tmp_path: Path) -> None:
    recipe = written(tmp_path, "recognition", rendered=3)
    (listed,) = recipe.data.unlabelled
    assert listed == tmp_path / "run" / "rendered-3-0" / "labels.txt"
    assert len(listed.read_text().splitlines()) == 3
    write_dataset(tmp_path / "own", 3, 0)
    own, drawn = (
        {file.read_bytes() for file in (folder / "images").iterdir()} for folder in (tmp_path / "own", listed.parent)
    )
    assert own.isdisjoint(drawn), "crops that `compress render` made with this seed may be the folder's"
    before = listed.stat().st_mtime_ns
    made_crops.make_crops(tmp_path / "run", Wishes("recognition", rendered=3, spliced=0), [], 0.25)
    assert listed.stat().st_mtime_ns == before, "they are drawn once"
    assert count_work(recipe, 500, [Header(32, 100, "PNG")], 40).train == 2 * 400
    (tmp_path / "run" / "sensitivity.json").touch()
    with pytest.raises(CompressError, match=r"of a run with another data\.unlabelled"):
        written(tmp_path, "recognition", rendered=4)
    assert not (tmp_path / "run" / "rendered-4-0").exists(), "nothing is drawn for a run that is refused"
    assert made_crops.made_folders(Wishes("recognition", seed=7)) == {"rendered-1500-7": 1500, "spliced-1500-7": 1500}
    assert made_crops.made_folders(Wishes("detection")) == {}


def test_spliced_crops_are_made_of_the_images_that_are_trained_on(tmp_path: Path) -> None:
    (tmp_path / "crops").mkdir()
    for shade in range(8):
        cv2.imwrite(str(tmp_path / "crops" / f"{shade}.png"), np.full((64, 200, 3), shade * 30, np.uint8))
    recipe = written(tmp_path, "recognition", 8, rendered=2, spliced=20)
    drawn, spliced = recipe.data.unlabelled
    assert (drawn.parent.name, spliced.parent.name) == ("rendered-2-0", "spliced-20-0")
    found = {shade // 30 for file in spliced.parent.glob("images/*") for shade in np.unique(cv2.imread(str(file)))}
    _, held = split_images(sorted((tmp_path / "crops").iterdir()), 0.25)
    assert found == set(range(8)) - {int(file.stem) for file in held}


def test_work_of_a_recogniser(tmp_path: Path) -> None:
    sizes = [Header(32, 100, "PNG"), Header(64, 1000, "PNG")]  # 100 -> 160 and 500 -> 640 of 320
    work = count_work(written(tmp_path, "recognition", 500), 500, sizes, 40)
    assert (work.train, work.val, work.scan_images) == (400, 100, 256)
    assert (work.area, work.train_area) == (pytest.approx((0.5 + 2.0) / 2),) * 2


def test_work_of_a_detector(tmp_path: Path) -> None:
    work = count_work(written(tmp_path, "detection", 500), 500, [Header(960, 1920, "PNG")], 40)
    assert (work.train, work.val, work.scan_images) == (476, 24, 12)
    sizes = (480 * 960, 320 * 640, 320 * TRAIN_SIDE)
    assert (work.area, work.scan_area, work.label_area) == pytest.approx(tuple(size / 640**2 for size in sizes))
    assert (work.train_area, work.loaded_each_time) == (1.0, True)


def test_plan_lines(tmp_path: Path) -> None:
    recipe = written(tmp_path, "classification")
    lines = plan_lines(recipe, WORK, PACE, done=2)
    assert len(lines) == len(STAGES) + 1
    assert lines[0] == "stage 1 of 7, label: 100 images by the original model, done"
    assert lines[1] == "stage 2 of 7, scan: 9 networks on 10 images each, done"
    assert lines[3] == "stage 4 of 7, reconstruct: 80 images, layer by layer, without training, about 20 s"
    assert lines[4] == "stage 5 of 7, fine-tune: 5 epochs of 80 images, near the original's outputs, about 2 min"
    # 30 + 20 + 124 + (30 + 20 + 2 x 44.8) + 16 = 329.6 s
    assert lines[-1] == "about 6 min in all, at 100 ms an image and 500 ms to train on it"


def test_sizes_and_pace_are_measured(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    save_model(from_torch(tiny.build(), torch.zeros(1, *tiny.SHAPE)), model)
    facts = ModelFacts(model, OPEN, (None, 2))
    recipe = written(tmp_path, "classification", facts=facts, threads=1, input=tiny.SHAPE)
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files[:2]):
        Image.new("RGB", (20 + number, 10)).save(file)
    files[2].write_bytes(b"no image")
    assert [(one.height, one.width) for one in shrink_cost.sample_sizes(files)] == [(10, 20), (10, 21)]
    pace, cells = shrink_cost.measure(recipe, files)
    assert min(pace.load, pace.forward, pace.train, pace.make) > 0
    assert cells == 3 * 3, "groups times ratios"


# --- stages -----------------------------------------------------------------------------------------------------


def test_stages_by_what_they_leave(tmp_path: Path) -> None:
    told: list[str] = []
    recipe = written(tmp_path, "classification")
    folder = recipe.out
    on_progress = shrinking.with_stages(lambda done, total, message: told.append(message), recipe)
    (folder / "labels").mkdir()
    stages = ("pruned.code.json", "pruned.json", "reconstructed.json", "finetuned.json", "int8.json")
    for name in ("labels/labels.json", *stages):
        on_progress(1, 2, "x")
        (folder / name).touch()
    on_progress(1, 2, "x")
    names = [f"stage {number} of 7, {name}: x" for number, name in enumerate(STAGES, start=1)]
    assert told == names
    on_progress(1, 2, "judging images without labels with the original")
    assert told[-1].startswith("stage 1 of 7, label: judging")


def test_a_detector_learns_more_from_labels_than_near_the_original() -> None:
    """The original's answers are met by what least squares left already; labels say something new."""
    family, wishes = FAMILIES["detection"], Wishes("detection")
    epochs = [default_epochs(480, family, labelled=labelled) for labelled in (False, True)]
    rates = [
        step["finetune"]["lr"]
        for labelled in (False, True)
        for step in default_steps(5, wishes, (3, 640, 640), labelled=labelled)
        if "finetune" in step
    ]
    assert epochs == [3, 5]
    assert rates == [0.001, 0.004]
