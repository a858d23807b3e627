"""`compress check` and `compress init`: what is said before anything is run."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from compress.cli import app
from compress.data.synthetic import write_dataset
from compress.pipeline.preparing.families import FAMILIES
from compress.pipeline.preparing.readiness import find_problems
from compress.pipeline.preparing.shrink_cost import Pace
from compress.recipe import PruneStep, Recipe, SensitivityStep, load_recipe
from tests.pipeline import tiny

ZOO = Path(__file__).parents[1] / "compress" / "zoo" / "models"


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], prog_name="compress")


def fails(*args: str | Path) -> list[str]:
    """The problems that are listed by a command that ends with 2."""
    result = run(*args)
    assert result.exit_code == 2, result.output
    assert not result.stdout
    return [line.removeprefix("Error: ") for line in result.stderr.splitlines() if line.startswith("Error: ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.write_inputs(tmp_path_factory.mktemp("preparing"), crops=4)
    tiny.recipe(folder)
    return folder


# --- check ------------------------------------------------------------------------------------------------------


def test_check_shows_the_plan_and_writes_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    result = run("check", folder / "recipe.yaml", "--set", f"out={folder / 'out'}", "--set", "finetune.epochs=2")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"{folder / 'recipe.yaml'}: no problems."
    assert [line.split(":")[0] for line in lines[1:]] == [
        *(f"stage {n} of 5, {name}" for n, name in enumerate(("sensitivity", "prune", "finetune", "quantize"), 1)),
        *("stage 5 of 5, report", "time", "memory", "disk"),
    ]
    assert "finetune: 2 epochs of 8 images, about " in lines[3]
    assert sorted(folder.rglob("*")) == before


def test_check_lists_every_problem(folder: Path) -> None:
    found = fails("check", folder / "recipe.yaml", "--set", "prune.align=5", "--set", "data.val=none.txt")
    assert [line.split(":")[1].strip() for line in found] == ["prune.align", "data.val"]
    bad = folder / "bad.txt"
    bad.write_text("one column\n")
    found = fails("check", folder / "recipe.yaml", "--set", f"data.val={bad}", "--set", f"data.train={bad}")
    assert [line.split(":")[0] for line in found] == ["data.train", "data.val"]
    found = fails("check", folder / "recipe.yaml", "--set", "device=cuda:7")
    assert [line.split(":")[0] for line in found] == ["device"]
    assert fails("check") == ["RECIPE: missing. Give the path of a recipe, or --schema."]


# --- init -------------------------------------------------------------------------------------------------------

CLASSIFIER, RECOGNISER, DETECTOR = (
    ZOO / f"{name}.onnx" for name in ("direction_classifier", "text_recogniser", "text_detector")
)
BUILT = ("tests.pipeline.tiny:build", "--input", ",".join(map(str, tiny.SHAPE)))
CHARSET = ("--charset", ZOO / "latin.txt")


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is timed."""
    pace = Pace(load=0.01, forward=0.1, train=0.5, make=0.2)
    monkeypatch.setattr("compress.pipeline.preparing.estimate.measure", lambda recipe, files: (pace, 9))


def written(out: Path, *args: str | Path) -> Recipe:
    """The recipe that is written, which passes every check."""
    result = run("init", *args, "--out", out)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"Written: {out}")
    assert lines[-1] == f"To run it: compress run {out}"
    assert any(line.startswith("time: about ") for line in lines)
    recipe = load_recipe(out)
    find_problems(recipe)
    return recipe


@pytest.mark.usefixtures("paced")
def test_init_with_images_alone(folder: Path, tmp_path: Path) -> None:
    recipe = written(tmp_path / "r.yaml", CLASSIFIER, "--data", folder / "train" / "images")
    assert recipe.task.kind == "classification"
    assert (recipe.data.images, recipe.data.train, recipe.data.val) == ((folder / "train" / "images",), (), ())
    family = FAMILIES["classification"]
    assert [step.name for step in recipe.steps] == ["sensitivity", "prune", "reconstruct", "finetune", "quantize"]
    assert recipe.find_step(PruneStep).target.macs == family.macs  # type: ignore[union-attr]
    assert recipe.find_step(SensitivityStep).measure == "agreement"  # type: ignore[union-attr]
    text = (tmp_path / "r.yaml").read_text()
    assert "\n  # Train near the original's outputs." in text
    assert "\n# Images without labels: the original labels them" in text
    assert all(len(line) <= 120 for line in text.splitlines() if line.startswith(" "))


@pytest.mark.usefixtures("paced")
def test_init_allows_bad_images_where_it_is_told_to(folder: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(folder / "train" / "images", images)
    (images / "bad.png").write_bytes(b"no image")
    (images / "moving.gif").touch()
    given = ["init", folder / "model.onnx", "--data", images, "--input", "3,16,32", "--out", tmp_path / "r.yaml"]
    (line,) = fails(*given)
    assert f"is unreadable: {images / 'bad.png'}. At most 1% may be." in line
    result = run(*given, "--max-skipped", "0.5")
    assert result.exit_code == 0, result.output
    assert "left out 1 file of another kind, moving.gif." in result.stderr
    assert load_recipe(tmp_path / "r.yaml").data.max_skipped == 0.5


@pytest.mark.usefixtures("paced")
def test_init_splits_a_label_list(folder: Path, tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        recipe = written(tmp_path / f"{name}.yaml", CLASSIFIER, "--data", folder / "train")
        assert recipe.data.train == (tmp_path / f"{name}_train.txt",)
        texts.append([(tmp_path / f"{name}_{part}.txt").read_text() for part in ("train", "val")])
        assert recipe.find_step(SensitivityStep).measure == "metric"  # type: ignore[union-attr]
    assert texts[0] == texts[1], "the same every time"
    train, val = (text.splitlines() for text in texts[0])
    assert (len(train), len(val)) == (3, 1)
    original = (folder / "train" / "labels.txt").read_text().splitlines()
    assert sorted((*train, *val)) == sorted(f"{folder / 'train'}/{line}" for line in original)


@pytest.mark.usefixtures("paced")
def test_init_finds_parts_of_a_folder(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name, source in (("train", "train"), ("val", "val")):
        shutil.copytree(folder / source, data / name)
    write_dataset(data / "test", 4, 77)  # other images than those of `val`
    recipe = written(tmp_path / "r.yaml", RECOGNISER, *CHARSET, "--data", data, "--preset", "doctr")
    assert recipe.data.train == (data / "train" / "labels.txt",)
    assert recipe.data.val == (data / "val" / "labels.txt",)
    assert recipe.data.test == {"test": (data / "test" / "labels.txt",)}
    assert (recipe.task.preset, recipe.task.charset, recipe.task.use_space) == ("doctr", CHARSET[1], True)
    text = (tmp_path / "r.yaml").read_text()
    assert "train: data/train/labels.txt" in text, "relative, so that both can be moved"


@pytest.mark.usefixtures("paced")
def test_init_for_scenes(folder: Path, tmp_path: Path) -> None:
    scenes, others = tmp_path / "scenes", tmp_path / "others"
    for number, of in enumerate((scenes, scenes, others, others)):
        of.mkdir(exist_ok=True)
        cv2.imwrite(str(of / f"{number}.png"), np.full((64, 64, 3), number, np.uint8))
        (of / f"gt_{number}.txt").write_text("0,0,9,0,9,9,0,9,WORD\n")
    recipe = written(tmp_path / "r.yaml", DETECTOR, "--data", scenes, "--val", others)
    assert (recipe.data.train, recipe.data.val, recipe.task.augment) == ((scenes,), (others,), "mild")
    given = ("--out", tmp_path / "other.yaml", "--data", scenes)
    assert "--val: missing." in fails("init", DETECTOR, *given)[0]
    assert "Cut out lines: compress crop" in fails("init", RECOGNISER, *CHARSET, *given)[0]


def test_init_says_what_is_wrong_in_a_line(folder: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "r.yaml")
    images, listed = ("--data", folder / "train" / "images"), ("--data", folder / "train" / "labels.txt")
    (tmp_path / "empty").mkdir()
    named = tmp_path / "named.txt"
    named.write_text("".join(f"{n}.png\t{'down' if n % 2 else 'up'}\n" for n in range(4)))
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 8, 3), number, np.uint8))
    for args, said in (
        ((RECOGNISER, *images), "--charset: missing."),
        ((CLASSIFIER, *images, *CHARSET), "--charset: not for classification."),
        ((RECOGNISER, *CHARSET, *images, "--labels", "a,b"), "--labels: not for recognition."),
        ((CLASSIFIER, *images, "--val", folder / "val" / "labels.txt"), "--val: not with images without labels"),
        ((CLASSIFIER, "--data", folder / "none"), "no such file or folder."),
        ((CLASSIFIER, "--data", tmp_path / "empty"), "no images, and no labels.txt."),
        ((CLASSIFIER, "--data", named), "--labels: missing. The model has 2 classes, and the list names down, up."),
        ((CLASSIFIER, "--data", named, "--labels", "a,b,c"), "task: labels: got 3: a, b, c."),
        ((folder / "none.onnx", *listed), "no such file"),
        (("package.module:factory", *listed), "package.module:factory: cannot be imported"),
        ((*BUILT, *listed, "--charset", "c.txt"), "--charset: not for classification."),
        ((CLASSIFIER, *listed, "--weights", "w.pt"), "--weights: w.pt goes with package.module:factory"),
    ):
        found = fails("init", *args, *out)
        assert len(found) == 1, found
        assert said in found[0]
        assert not list(tmp_path.glob("r*")), "nothing is left of what was begun"


@pytest.mark.usefixtures("paced")
def test_init_exports_a_module_beside_the_recipe(folder: Path, tmp_path: Path) -> None:
    recipe = written(tmp_path / "r.yaml", *BUILT, "--data", folder / "train")
    assert (recipe.model, recipe.task.kind) == (str(tmp_path / "r.onnx"), "classification")
    (tmp_path / "r.yaml").unlink()
    (found,) = fails("init", *BUILT, "--data", folder / "train", "--out", tmp_path / "r.yaml")
    assert found.endswith("r.onnx: is there already. Give another name, or delete it.")


@pytest.mark.usefixtures("paced")
def test_texts_of_another_charset_are_told_before_anything_runs(tmp_path: Path) -> None:
    """With the setting that makes them fit, where there is one."""
    labels = write_dataset(tmp_path / "words", 6, 0)
    rows = [line.split("\t") for line in labels.read_text().splitlines()]
    labels.write_text("".join(f"{path}\t{text.upper()}\n" for path, text in rows))
    capitals = {ord(letter): chr(0x3B1 + number) for number, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ")}
    (tmp_path / "small.txt").write_text((ZOO / "latin.txt").read_text().translate(capitals))
    args = ("init", RECOGNISER, "--data", labels, "--charset", tmp_path / "small.txt", "--out", tmp_path / "r.yaml")
    found = [line for line in fails(*args) if "texts hold" in line]
    assert found
    assert all("In small letters" in line and "task.lowercase (--lowercase)" in line for line in found)
    assert run(*args, "--lowercase").exit_code == 0


@pytest.mark.usefixtures("paced")
def test_characters_that_the_charset_lacks_are_warned_of(tmp_path: Path) -> None:
    """From more than 2 % of all on, though half of the texts may hold some."""
    labels, others = write_dataset(tmp_path / "words", 6, 0), write_dataset(tmp_path / "others", 6, 1)
    files = [line.split("\t")[0] for line in labels.read_text().splitlines()]
    args = ("init", RECOGNISER, "--data", labels, "--charset", ZOO / "latin.txt", "--out", tmp_path / "r.yaml")
    for share, warned in ((2, 0), (3, 2)):  # of 102 and 103 characters
        texts = ["ё" * share, *["a" * 20] * 5]
        for each in (labels, others):
            each.write_text("".join(f"{file}\t{text}\n" for file, text in zip(files, texts, strict=True)))
        result = run(*args, "--val", others)
        assert result.exit_code == 0, result.output
        found = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
        assert len(found) == warned, result.stderr
        if warned:
            total = 100 + share
            assert f"{share} of {total} characters ({100 * share / total:.1f} %: 'ё' 3x) are not in" in found[0]
            assert found[0].endswith("latin.txt, left out of the texts.")
            assert found[1].endswith("latin.txt, and texts with them count as read wrong.")
            assert (tmp_path / "r.yaml").exists()
            again = run("check", tmp_path / "r.yaml")
            assert again.exit_code == 0
            assert [line for line in again.stderr.splitlines() if line.startswith("Warning: ")] == found
        (tmp_path / "r.yaml").unlink()


@pytest.mark.usefixtures("paced")
def test_init_overwrites_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.yaml"
    out.write_text("mine")
    assert "is there already." in fails("init", CLASSIFIER, "--data", folder / "train", "--out", out)[0]
    assert out.read_text() == "mine"
    out.rename(tmp_path / "r_val.txt")
    assert "r_val.txt: is there already." in fails("init", CLASSIFIER, "--data", folder / "train", "--out", out)[0]
    assert [path.name for path in tmp_path.iterdir()] == ["r_val.txt"]
