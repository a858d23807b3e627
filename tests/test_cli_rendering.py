"""`compress render` and `compress demo`: images with labels out of nothing, and the whole flow on them."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from compress import pipeline
from compress.artifacts import Report
from compress.cli import app, rendering
from compress.data.images import load_images
from compress.data.labels import read_labels
from compress.data.scenes import load_scenes
from compress.errors import ModelError
from compress.recipe import Recipe
from compress.zoo import demos, models_folder


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, args)], prog_name="compress")


def test_training_and_validation_words_have_nothing_in_common(tmp_path: Path) -> None:
    result = run("render", "--out", tmp_path, "--train", "6", "--val", "4")
    assert result.exit_code == 0, result.output
    parts = [load_images(read_labels(tmp_path / part / "labels.txt")) for part in ("train", "val")]
    assert [len(part.images) for part in parts] == [6, 4]
    pixels = [{image.tobytes() for image in part.images} for part in parts]
    assert not pixels[0] & pixels[1]


def test_scenes_are_detection_data_with_nothing_in_common(tmp_path: Path) -> None:
    result = run("render", "--out", tmp_path, "--kind", "scenes", "--train", "3", "--val", "2")
    assert result.exit_code == 0, result.output
    assert "3 scenes" in result.stdout
    parts = [load_scenes(tmp_path / part / "labels.txt").scenes for part in ("train", "val")]
    assert [len(scenes) for scenes in parts] == [3, 2]
    pixels = [{scene.image.read_bytes() for scene in scenes} for scenes in parts]
    assert not pixels[0] & pixels[1]


def test_another_seed_renders_other_words(tmp_path: Path) -> None:
    for seed in ("0", "0", "1"):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        assert run("render", "--out", folder, "--train", "2", "--val", "1", "--seed", seed).exit_code == 0
    first, again, other = ((tmp_path / name / "train" / "labels.txt").read_text() for name in "012")
    assert first == again != other


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--kind", "pages"], "'words', 'scenes'"),
        (["--train", "0"], "greater than or equal to 1"),
        (["--out", "FILE"], "FILE"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, given: list[str], said: str) -> None:
    (tmp_path / "FILE").write_text("")
    options = [tmp_path / each if each == "FILE" else each for each in given]
    result = run("render", "--out", tmp_path / "x", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "USUAL", dict.fromkeys(rendering.Kind, (3, 2)))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("kind", rendering.Demo)
def test_a_demo_stands_in_its_folder(kind: rendering.Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its recipe names nothing outside, keeps the comments and steps of the repository's, and runs in its folder."""
    ran: list[Recipe] = []

    def look(recipe: Recipe, *_: object, **__: object) -> Report:
        ran.append(recipe)
        raise ModelError("looked at.")

    monkeypatch.setattr(pipeline, "run_recipe", look)
    monkeypatch.setattr(pipeline, "announce_stages", lambda *_: {})  # times training steps of what ships
    for _ in range(2):  # again, images stay
        result = run("demo", kind, "--out", tmp_path / "demo", "--set", "finetune.epochs=1")
        assert result.stderr.endswith("Error: looked at.\n")
    folder = tmp_path / "demo" / kind
    assert ran[0] == ran[1]
    assert Path(ran[0].model).parent == ran[0].data.val[0].parents[2] == folder
    assert ran[0].out == folder / "run"
    assert ran[0].data.train == (folder / "data" / "train" / "labels.txt",)
    assert len(list((folder / "data" / "train" / "images").iterdir())) == 3
    own = yaml.safe_load((folder / "recipe.yaml").read_text())
    there = yaml.safe_load((models_folder().parents[2] / "recipes" / demos.RECIPES[kind]).read_text())
    assert (own["steps"], own["gates"]) == (there["steps"], there["gates"])
    assert ".." not in (folder / "recipe.yaml").read_text().partition("steps:")[0]


@pytest.mark.usefixtures("few")
def test_a_demo_without_its_recipe_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demos, "RECIPES", {"classification": "gone.yaml"})
    result = run("demo", "--out", tmp_path)
    assert result.exit_code == 2
    assert "gone.yaml: does not ship with this installation" in result.stderr


def test_nothing_of_the_users_is_overwritten(tmp_path: Path) -> None:
    """Neither data of their own, nor words by scenes, nor a demo's recipe that they changed; the same again is fine."""
    (tmp_path / "mine" / "train").mkdir(parents=True)
    (tmp_path / "mine" / "train" / "labels.txt").write_text("a.png\tmine\n")
    words = ("--train", "2", "--val", "1")
    for _ in range(2):
        assert run("render", "--out", tmp_path / "words", *words).exit_code == 0
    for out, more in (("mine", words), ("words", (*words, "--kind", "scenes")), ("words", (*words, "--seed", "1"))):
        result = run("render", "--out", tmp_path / out, *more)
        assert result.exit_code == 2
        assert "holds other images in train/ or val/" in result.stderr
    assert (tmp_path / "mine" / "train" / "labels.txt").read_text() == "a.png\tmine\n"


def test_a_changed_demo_recipe_stays(tmp_path: Path) -> None:
    recipe = demos.write_recipe("classification", tmp_path / "demo")
    recipe.write_text(recipe.read_text() + "# mine\n")
    assert demos.write_recipe("classification", tmp_path / "demo").read_text().endswith("# mine\n")
