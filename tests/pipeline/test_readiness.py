"""Whether a recipe can start: data in every format, and every problem at once."""

from pathlib import Path

import lmdb
import pytest

from compress.data.synthetic import write_dataset
from compress.errors import DataError, RecipeError
from compress.pipeline.preparing.drafting import find_data
from compress.pipeline.preparing.readiness import find_problems
from compress.pipeline.preparing.sources import Source, format_of, read_source
from compress.recipe import load_recipe
from tests.data.test_shards import write_shards
from tests.pipeline import tiny

ZOO = Path(__file__).parents[2] / "compress" / "zoo" / "models"


def write_lmdb(folder: Path, count: int) -> None:
    """A database that says how many samples it has."""
    with lmdb.open(str(folder)) as database, database.begin(write=True) as writer:
        writer.put(b"num-samples", str(count).encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_inputs(tmp_path, crops=3)


def test_formats_are_told_by_what_lies_there(folder: Path) -> None:
    write_lmdb(folder / "lmdb", 1)
    scenes = folder / "scenes"
    (scenes / "gt").mkdir(parents=True)
    (scenes / "gt" / "gt_1.txt").write_text("\ufeff0,0,9,0,9,9,0,9,WORD\n")
    (folder / "notes.txt").write_text("1, 2, 3\n")
    assert format_of(folder / "train" / "labels.txt") == "list"
    assert format_of(folder / "lmdb") == "lmdb"
    assert format_of(scenes) == "icdar"
    assert format_of(folder) == "icdar", "also in subfolders"
    assert format_of(folder / "train") == "images"
    with pytest.raises(DataError, match="none: no such file or folder"):
        format_of(folder / "none")


def test_images_are_counted(folder: Path) -> None:
    listed = read_source(folder / "train" / "labels.txt", "classification")
    assert (listed.images, len(listed.files), len(listed.texts)) == (3, 3, 3)
    bare = read_source(folder / "train", "recognition", labelled=False)
    assert (bare.images, bare.texts) == (3, ())
    write_lmdb(folder / "lmdb", 2)
    assert read_source(folder / "lmdb", "recognition") == Source(folder / "lmdb", "lmdb", 2)
    with pytest.raises(DataError, match=r"a folder without data\.mdb"):
        read_source(folder / "train", "recognition")


def test_archives_of_crops(folder: Path) -> None:
    pattern = write_shards(folder / "train" / "labels.txt", folder / "shards")
    texts = read_source(folder / "train" / "labels.txt", "classification").texts
    for path in (pattern, folder / "shards"):
        assert format_of(path) == "shards"
        assert read_source(path, "classification") == Source(path, "shards", 3, texts=texts)
        assert read_source(path, "classification", labelled=False) == Source(path, "shards", 3)
    lists = {"train": "shards/train-{000..001}.tar", "val": "val/labels.txt", "unlabelled": "shards"}
    assert [source.images for source in find_problems(tiny.recipe(folder, data=lists)).train] == [3]
    found = find_data(pattern, "classification", folder / "val" / "labels.txt")
    assert found.train == pattern
    with pytest.raises(RecipeError, match=r"data\.images: .*shards: tar archives hold crops for recognition"):
        find_problems(tiny.recipe(folder, data={"images": "shards"}))
    with pytest.raises(RecipeError, match=r"data\.train: .*1 of 3 archives is missing, the first is .*train-002\.tar"):
        tiny.recipe(folder, data={**lists, "train": "shards/train-{000..002}.tar"})


def test_a_good_recipe_has_none(folder: Path) -> None:
    images = find_problems(tiny.recipe(folder))
    assert [source.images for source in images.learned] == [3, 3]
    assert len(images.files) == 6
    assert not (folder / "out").exists()


def test_every_problem_at_once(folder: Path) -> None:
    (folder / "train" / "labels.txt").write_text("one column\n")
    (folder / "val" / "labels.txt").write_text("none.png\ta\n")
    (folder / "model.onnx").write_bytes(b"no model")
    with pytest.raises(RecipeError) as caught:
        find_problems(tiny.recipe(folder))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(
        found.startswith(start) for found, start in zip(lines, ("data.train: ", "data.val: ", "model: "), strict=True)
    )


@pytest.mark.parametrize(
    ("model", "task", "said"),
    [
        ("direction_classifier.onnx", {"kind": "detection", "input": [3, 64, 192]}, r"is that of classification, but"),
        ("direction_classifier.onnx", {"kind": "classification", "labels": ["a", "b", "c"]}, r"^task: labels: got 3"),
        ("text_recogniser.onnx", {"kind": "recognition", "use_space": False}, r"^task: .*latin\.txt: .* classes"),
        ("text_recogniser.onnx", {"kind": "classification"}, "is that of recognition, but task.kind is classification"),
    ],
)
def test_a_model_for_another_task(folder: Path, model: str, task: dict[str, object], said: str) -> None:
    if task["kind"] == "recognition":
        task = {**task, "charset": str(ZOO / "latin.txt")}
    lists = {"train": "train/labels.txt", "val": "val/labels.txt"}
    if task["kind"] == "detection":
        lists = {"images": "train"}
    recipe = tiny.recipe(
        folder, model=str(ZOO / model), task=task, data=lists, steps={"quantize": {"epochs": 0}}, compare={}
    )
    with pytest.raises(RecipeError, match=said):
        find_problems(recipe)


def test_one_image_cannot_be_parted(folder: Path) -> None:
    write_dataset(folder / "one", 1, 3)
    path = tiny.recipe(folder).out.parent / "recipe.yaml"
    text = path.read_text().replace("  train: train/labels.txt\n", "").replace("val: val/labels.txt", "images: one")
    path.write_text(text)
    with pytest.raises(RecipeError, match=r"data\.images: got one image"):
        find_problems(load_recipe(path))


def test_images_that_are_learned_from_and_scored_on(folder: Path) -> None:
    """What a run would refuse after its start."""
    lists = {"train": "train/labels.txt", "val": "train/labels.txt"}
    with pytest.raises(RecipeError, match=r"val: 3 of 3 images are in train, too, .* data\.allow_overlap"):
        find_problems(tiny.recipe(folder, data=lists))
    (line,) = find_problems(tiny.recipe(folder, data={**lists, "allow_overlap": True})).warnings
    assert line.startswith("val: 3 of 3 images are in train, too")
    lists = {"train": "train/labels.txt", "val": "val/labels.txt", "test": {"lines": "train/labels.txt"}}
    with pytest.raises(RecipeError, match=r"data\.test\.lines: 3 of 3 images are in train, too"):
        find_problems(tiny.recipe(folder, data=lists))
