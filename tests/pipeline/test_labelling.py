"""Images without labels: the lists that the original makes of them, and a run on them."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper

from compress import artifacts
from compress.data.images import read_image
from compress.data.labels import ListRules, read_labels
from compress.data.scenes import load_scenes
from compress.data.synthetic import write_dataset
from compress.data.synthetic_scenes import write_scenes
from compress.errors import ArtifactError, DataError
from compress.pipeline import labelling, run_recipe, score_model
from compress.pipeline.code import recipe_settings
from compress.pipeline.evaluation import examine_model
from compress.pipeline.labelling import Labelled, with_labels
from compress.pipeline.tasks import held_out_task, recipe_task
from compress.recipe import Recipe, load_recipe
from tests.pipeline import tiny

ANYWHERE = ListRules(roots=(Path("/"),))
"""The lists lie in the run's folder, the images elsewhere."""
ZOO = Path(__file__).parents[2] / "compress" / "zoo" / "models"


def given(folder: Path, model: Path, task: dict[str, Any], **data: Any) -> Recipe:
    """A recipe on the images of a folder, with some step."""
    content = {
        "version": 1,
        "model": str(model),
        "task": task,
        "data": {"images": str(folder), **data},
        "threads": 1,
        "steps": [{"prune": {"target": {"ratio": 0.5}}}],
    }
    path = folder.parent / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_recipe(path, [f"out={folder.parent / 'out'}"])


READING = {"kind": "recognition", "charset": str(ZOO / "latin.txt"), "input": [3, 32, 320], "widths": [96, 160, 320]}


@pytest.fixture
def words(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "words", 10, 1)
    return tmp_path / "words"


def test_texts_are_what_the_original_reads(words: Path) -> None:
    recipe = with_labels(given(words, ZOO / "text_recogniser.onnx", READING, held_back=0.4)).recipe
    task = recipe_task(recipe)
    score = score_model(ZOO / "text_recogniser.onnx", task, 1)
    assert (score.name, score.metric, score.count) == ("agreement (text)", 1.0, 4)
    assert score.details["ned"] == 1.0
    lists = [read_labels(recipe.data.train[0], ANYWHERE), read_labels(recipe.data.val[0], ANYWHERE)]
    assert [len(part.entries) for part in lists] == [6, 4]
    truth = {entry.image.name: entry.text for entry in read_labels(words / "labels.txt").entries}
    right = [truth[entry.image.name] == entry.text for part in lists for entry in part.entries]
    assert sum(right) >= 5, "The model that ships reads most of what is rendered."


def test_images_that_cannot_be_read_are_counted_and_no_label_depends_on_them(words: Path) -> None:
    recipe = given(words, ZOO / "text_recogniser.onnx", READING, held_back=0.4, max_skipped=0.5)
    (words / "broken.png").write_bytes(b"no image")
    told: list[tuple[int, int]] = []
    labelled = with_labels(recipe, lambda done, total, message: told.append((done, total)))
    assert labelled.warnings == (f"{words}: 1 of 11 images skipped, unreadable: broken.png",)
    assert told[-1] == (10, 10)
    told.clear()
    (words / "broken.png").unlink()
    again = with_labels(recipe, lambda done, total, message: told.append((done, total)))
    assert (again, told) == (Labelled(labelled.recipe), [])


def test_too_many_that_cannot_be_read_are_refused_before_any_is_labelled(words: Path) -> None:
    (words / "broken.png").write_bytes(b"no image")
    recipe = given(words, ZOO / "text_recogniser.onnx", READING)
    with pytest.raises(DataError, match=r"1 of 11 images is unreadable: .*/words/broken\.png"):
        with_labels(recipe)
    assert not (recipe.out / "labels").exists()


@pytest.mark.parametrize("kind", ["recognition", "classification", "detection"])
def test_images_whose_pixels_are_damaged_are_in_no_list(words: Path, kind: str) -> None:
    data = next(words.rglob("*.png")).read_bytes()
    (words / "damaged.png").write_bytes(data[: len(data) // 2])
    model, task = {
        "recognition": (ZOO / "text_recogniser.onnx", READING),
        "classification": (ZOO / "direction_classifier.onnx", {"kind": "classification"}),
        "detection": (ZOO / "text_detector.onnx", {"kind": "detection", "input": [3, 64, 64], "side": 64}),
    }[kind]
    with pytest.raises(
        DataError, match=r"words: 1 of 11 images is unreadable: .*words/damaged\.png\. At most 1% may be"
    ):
        with_labels(given(words, model, task, held_back=0.4))
    recipe = given(words, model, task, held_back=0.4, max_skipped=0.5)
    labelled = with_labels(recipe)
    assert labelled.warnings == (f"{words}: 1 of 11 images skipped, unreadable: damaged.png",)
    assert not any("unreadable" in line for line in recipe_task(labelled.recipe).warnings())
    kept = (recipe.out / "labels" / "labels.json").read_bytes()
    (recipe.out / "sensitivity.json").touch()
    assert with_labels(recipe) == labelled
    (words / "damaged.png").unlink()
    assert with_labels(recipe) == Labelled(labelled.recipe)
    assert (recipe.out / "labels" / "labels.json").read_bytes() == kept


def test_lists_of_an_earlier_version_may_name_damaged_images(words: Path) -> None:
    """What was computed from them goes on."""
    data = next(words.rglob("*.png")).read_bytes()
    (words / "damaged.png").write_bytes(data)
    recipe = given(words, ZOO / "text_recogniser.onnx", READING, held_back=0.4, max_skipped=0.5)
    (words / "damaged.png").write_bytes(data[: len(data) // 2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labelling, "_damage", lambda *_: "")
        earlier = with_labels(recipe)
    (recipe.out / "sensitivity.json").touch()
    assert with_labels(recipe) == earlier
    assert sum("unreadable: damaged.png" in line for line in recipe_task(earlier.recipe).warnings()) == 1


def test_a_model_that_reads_nothing(words: Path) -> None:
    """As one whose blank is another class does."""
    model = onnx.load(ZOO / "text_recogniser.onnx")
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(tensor.dims, np.float32), tensor.name))
    onnx.save(model, words / "blind.onnx")
    with pytest.raises(DataError, match=r"reads nothing in any of \d+ images \(train\).*task\.preset, task\.blank"):
        with_labels(given(words, words / "blind.onnx", READING, held_back=0.4))


@pytest.mark.parametrize("kind", ["recognition", "classification"])
def test_a_folder_of_links(words: Path, kind: str) -> None:
    """As data sets are put together; what the run itself lists of them may lead anywhere, other lists may not."""
    (words.parent / "links").mkdir()
    for image in sorted((words / "images").iterdir()):
        (words.parent / "links" / image.name).symlink_to(image)
    model, task = {
        "recognition": (ZOO / "text_recogniser.onnx", READING),
        "classification": (ZOO / "direction_classifier.onnx", {"kind": "classification"}),
    }[kind]
    recipe = with_labels(given(words.parent / "links", model, task, held_back=0.4)).recipe
    stored = recipe_task(recipe).stored_images()
    assert [len(stored[name]) for name in ("train", "unlabelled", "val")] in ([6, 0, 4], [0, 6, 8])
    (recipe.out / "foreign.txt").write_text(f"../words/{next(words.glob('images/*')).relative_to(words)}\tEXIT\n")
    with pytest.raises(DataError, match=r"leads out of the list's folder"):
        held_out_task(recipe, [recipe.out / "foreign.txt"])


def test_directions_are_judged_as_they_are_and_turned(tmp_path: Path) -> None:
    write_dataset(tmp_path / "words", 10, 1)
    model = ZOO / "direction_classifier.onnx"
    recipe = with_labels(given(tmp_path / "words", model, {"kind": "classification", "directions": True})).recipe
    score = score_model(model, recipe_task(recipe), 1)
    assert (score.name, score.metric, score.count) == ("agreement (class)", 1.0, 2 * 2)
    entries = read_labels(recipe.data.val[0], ANYWHERE).entries
    upright, turned = (read_image(entries[index].image) for index in (0, 2))
    assert upright is not None
    assert turned is not None
    np.testing.assert_array_equal(turned, cv2.rotate(upright, cv2.ROTATE_180))
    assert {entry.text for entry in entries} == {"0", "180"}
    assert {f"agreement_{name}" for name in ("0", "180")} < set(score.details)
    tallies = examine_model(model, recipe_task(recipe), 1).tallies["agreement (class)"]
    assert tallies.tolist() == [[2, 2], [2, 2]], "A crop and the file with the same one turned are one image."


def test_regions_are_what_the_original_finds(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", 6, 1)
    model = ZOO / "text_detector.onnx"
    task = {"kind": "detection", "input": [3, 320, 320], "side": 320}
    recipe = with_labels(given(tmp_path / "scenes", model, task, held_back=0.3)).recipe
    made = recipe_task(recipe)
    score = score_model(model, made, 1)
    assert (score.name, score.metric, score.count) == ("agreement (hmean)", 1.0, 2)
    assert score.details["regions"] > 0
    assert sum(len(scene.regions) for scene in load_scenes(recipe.data.train[0], ANYWHERE).scenes) > 0
    (batch,) = made.train_batches(epoch=1, batch_size=4, seed=0)
    assert not batch.targets.counted.any(), "Of these the teacher's map alone is learned."


def test_lists_that_are_there_are_taken_and_stale_ones_made_again_or_refused(words: Path) -> None:
    recipe = given(words, ZOO / "text_recogniser.onnx", READING)
    first = with_labels(recipe)
    before = first.recipe.data.val[0].stat().st_mtime_ns
    told: list[str] = []
    assert with_labels(recipe, lambda done, total, message: told.append(message)) == first
    assert (told, first.recipe.data.val[0].stat().st_mtime_ns) == ([], before)
    image = next(words.rglob("*.png"))
    image.write_bytes(image.read_bytes() + b"another")
    held_back = first.recipe.data.val[0].read_text()
    notes: list[str] = []
    assert with_labels(recipe, lambda done, total, message: told.append(message), notes.append) == first
    assert len(told) > 0
    made = "of which nothing was computed: made anew; those are train.old.txt and val.old.txt."
    assert notes == [f"{recipe.out / 'labels'}: lists of other images or settings than now, {made}"]
    assert (recipe.out / "labels" / "val.old.txt").read_text() == held_back
    (recipe.out / "sensitivity.json").touch()
    image.write_bytes(image.read_bytes() + b"still another")
    with pytest.raises(ArtifactError, match=r"labels\.json: stale"):
        with_labels(recipe)


def test_a_list_that_was_removed_is_made_again(words: Path) -> None:
    recipe = given(words, ZOO / "text_recogniser.onnx", READING)
    first = with_labels(recipe).recipe.data.val[0]
    kept = first.read_bytes()
    first.unlink()
    assert with_labels(recipe).recipe.data.val[0].read_bytes() == kept


def test_names_that_no_list_can_hold(words: Path) -> None:
    shutil.copy(next(words.rglob("*.png")), words / "a\tb.png")
    recipe = given(words, ZOO / "text_recogniser.onnx", READING)
    with pytest.raises(DataError, match=r"1 of 11 images is named with a tab, .*words/a\\tb\.png'\. .*Rename them"):
        with_labels(recipe)


def test_a_model_of_another_kind(words: Path) -> None:
    with pytest.raises(DataError, match=r"output shape .* does not fit recognition"):
        with_labels(given(words, ZOO / "direction_classifier.onnx", READING))
    with pytest.raises(DataError, match=r"output shape .* does not fit classification"):
        with_labels(given(words, ZOO / "text_recogniser.onnx", {"kind": "classification", "input": [3, 32, 320]}))


def test_a_recipe_on_images_is_for_run(words: Path) -> None:
    with pytest.raises(
        DataError, match=r"data\.images: not labelled yet. Only `compress run` takes a recipe on images"
    ):
        recipe_task(given(words, ZOO / "text_recogniser.onnx", READING))


def test_a_whole_run_without_a_label(tmp_path: Path) -> None:
    tiny.write_inputs(tmp_path, crops=10)
    steps = {name: tiny.STEPS[name] for name in ("sensitivity", "prune")}
    steps["finetune"] = {"epochs": 2, "batch_size": 6, "lr": 0.01}
    steps["quantize"] = {"epochs": 0, "calibration": 8, "optimize": "size"}
    (tmp_path / "train" / "broken.png").write_bytes(b"no image")
    data = {"images": "train", "held_back": 0.3, "max_skipped": 0.1}
    recipe = tiny.recipe(tmp_path, steps=steps, data=data, gates={"metric_drop": 1.0})
    report = run_recipe(recipe, "")
    scores = {stage.stage: stage.score for stage in report.stages}
    assert {score.name for score in scores.values()} == {"agreement (class)"}
    assert (scores["baseline"].metric, scores["baseline"].count) == (1.0, 6)
    assert "agreement (class)" in (tmp_path / "out" / "report.md").read_text()
    assert report.settings == artifacts.fingerprint(recipe_settings(recipe)), "Else it could not be recorded."
    assert any("1 of 11 images skipped, unreadable: broken.png" in note for note in report.notes)
    again = run_recipe(recipe, "")
    assert [stage.score for stage in again.stages] == [stage.score for stage in report.stages]
