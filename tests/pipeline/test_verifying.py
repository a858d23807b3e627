"""`--verify`: a changed byte is found and named, also where a stage's identity does not see it."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compress.cli import app
from compress.data import overlap, streaming
from compress.errors import ArtifactError, DataError
from compress.pipeline.tasks import recipe_task
from compress.pipeline.verifying import FILE, verify_images
from compress.recipe import Recipe
from tests.data.test_shards import write_shards
from tests.pipeline import tiny


def recipe(folder: Path, **data: object) -> Recipe:
    lists = {"train": "train/labels.txt", "val": "val/labels.txt", "allow_overlap": True, **data}
    return tiny.recipe(folder, steps={"quantize": {"epochs": 0, "optimize": "size"}}, data=lists)


def verify(given: Recipe) -> str:
    said: list[str] = []
    verify_images(given, recipe_task(given), on_note=said.append)
    return said[0]


def change(file: Path) -> None:
    """Another last byte, at the same size and time."""
    found, data = file.stat(), file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inputs whose training lists are streamed, with two images that a fingerprint reads."""
    monkeypatch.setattr(streaming, "STREAMED_FROM", 1)
    monkeypatch.setattr(streaming, "SAMPLED", 2)
    return tiny.write_inputs(tmp_path, crops=6)


@pytest.mark.parametrize("kind", ["list", "archive"])
def test_a_changed_byte_is_named(folder: Path, kind: str) -> None:
    train = folder / "train" / "labels.txt"
    image = train.parent / train.read_text().splitlines()[3].split("\t")[0]
    pattern = write_shards(train, folder / "shards", each=6)
    given = recipe(folder, train=str(train if kind == "list" else pattern), test={"more": "val/labels.txt"})
    before = recipe_task(given).fingerprint()
    file = given.out / FILE
    assert verify(given) == f"Verified: 0 images as {file} has them, 18 noted there for the first time."
    assert verify(given) == f"Verified: 18 images as {file} has them, 0 noted there for the first time."
    change(image)
    if kind == "archive":
        write_shards(train, folder / "shards", each=6)
    assert recipe_task(given).fingerprint() == before
    name = image.name if kind == "list" else "train-000.tar/00003.png"
    with pytest.raises(DataError, match=rf"data\.train: 1 of 6 images changed since .*{FILE} .* is .*{name}\. Restore"):
        verify(given)
    change(image)
    if kind == "archive":
        write_shards(train, folder / "shards", each=6)
    assert "18 images as" in verify(given)


def test_images_that_come_and_go_are_for_fingerprints_to_tell(folder: Path) -> None:
    given = recipe(folder)
    verify(given)
    train = folder / "train" / "labels.txt"
    train.write_text("".join(train.read_text().splitlines(keepends=True)[:4]))
    assert "10 images as" in verify(given)


def test_test_sets_and_scenes_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of crops that are decoded at once the digests are those that were made then: nothing is read twice."""
    monkeypatch.setattr(streaming, "STREAMED_FROM", 10**9)
    given = recipe(folder, test="val/labels.txt")
    monkeypatch.setattr(overlap.Stored, "content", lambda self: self.digest)
    assert "18 noted" in verify(given)
    change(next((folder / "val").rglob("*.png")))
    with pytest.raises(DataError, match=r"data\.val: 1 of 6 images changed"):
        verify(given)


def test_damaged_digests(folder: Path) -> None:
    given = recipe(folder)
    verify(given)
    (given.out / FILE).write_text('["data.train"]\n')
    with pytest.raises(ArtifactError, match=rf"{FILE}: damaged .* Delete it: images are then noted anew"):
        verify(given)


def test_the_command(folder: Path) -> None:
    recipe(folder)
    command = ["run", str(folder / "recipe.yaml"), "--out", str(folder / "run"), "--verify"]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    assert "Verified: 0 images as" in first.output
    assert "\n[12/12] reading images in full\n" in f"\n{first.output}"
    train = folder / "train" / "labels.txt"
    change(train.parent / train.read_text().splitlines()[2].split("\t")[0])
    second = CliRunner().invoke(app, command)
    assert second.exit_code == 2
    assert "\n[12/12] reading images in full\n" in f"\n{second.output}", "finished stages are not its own"
    assert "Error: data.train: 1 of 6 images changed since" in second.output


def test_from_another_folder_the_same_images_are_compared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe's paths are what they are from where the run is started."""
    given = recipe(folder)
    verify(given)
    monkeypatch.chdir(folder)
    relative = given.model_copy(
        update={
            "data": given.data.model_copy(
                update={"train": (Path("train/labels.txt"),), "val": (Path("val/labels.txt"),)}
            )
        }
    )
    assert ", 0 noted there" in verify(relative)


def test_an_image_of_a_streamed_list_that_cannot_be_read(folder: Path) -> None:
    given = recipe(folder)
    task = recipe_task(given)
    first = next(iter((folder / "train").glob("*.png")), None) or next((folder / "train").rglob("*.png"))
    first.unlink()
    first.mkdir()
    with pytest.raises(DataError, match=rf"data\.train: .*{first.name}: cannot be read\. Restore it"):
        verify_images(given, task)
