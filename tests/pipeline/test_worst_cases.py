"""Pictures of one model: one pass over the images, folders that may be written to, and tasks that tell nothing."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from compress import artifacts
from compress.artifacts import Gallery
from compress.errors import ArtifactError, CompressError, OutputError
from compress.graph import from_torch
from compress.pipeline import make_task, score_model, score_with_pictures
from compress.pipeline.scanning.scan_cost import at_side, side_of
from compress.tasks.base import Task
from tests.pipeline import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_inputs(tmp_path_factory.mktemp("pictures"), crops=6)


@pytest.fixture
def task(folder: Path) -> Task:
    val = [folder / "val" / "labels.txt"]
    return make_task("classification", train=(), val=val, input_shape=tiny.SHAPE, directions=True)


class Silent:
    """A user's own task, from before there were pictures: it tells nothing of single images."""

    def __init__(self, task: Task) -> None:
        self.evaluate, self.check_model, self.metric_name = task.evaluate, task.check_model, task.metric_name


def shoot(folder: Path, task: Task, out: Path, count: int = 3) -> Gallery | None:
    examined, gallery = score_with_pictures(folder / "model.onnx", task, out, name="model", count=count, threads=1)
    assert examined.score == score_model(folder / "model.onnx", task, 1)
    return gallery


def test_score_pictures_and_page(folder: Path, task: Task, tmp_path: Path) -> None:
    gallery = shoot(folder, task, tmp_path / "shots")
    assert gallery is not None
    assert gallery.wrong == (round(12 * (1 - score_model(folder / "model.onnx", task, 1).metric)),)
    written = {path.name for path in (tmp_path / "shots").iterdir()}
    assert written == {"index.html", "pictures.json", *(picture.file for picture in gallery.pictures)}
    assert len(gallery.pictures) == 3


def test_the_model_sees_each_image_once(
    folder: Path, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Counting:
        output_shape = (None, 2)

        def __init__(self, *_: object, **__: object) -> None: ...

        def run(self, images: np.ndarray) -> np.ndarray:
            seen.append(len(images))
            return np.tile(np.array([[0.9, 0.1]], np.float32), (len(images), 1))

    monkeypatch.setattr("compress.pipeline.evaluation.Session", Counting)
    examined, gallery = score_with_pictures(folder / "model.onnx", task, tmp_path / "s", name="m", count=3, threads=1)
    assert (sum(seen), examined.score.metric, gallery and gallery.wrong) == (12, 0.5, (6,))


def test_a_second_time_replaces_the_first(folder: Path, task: Task, tmp_path: Path) -> None:
    shoot(folder, task, tmp_path / "shots", 5)
    gallery = shoot(folder, task, tmp_path / "shots", 1)
    assert gallery is not None
    assert {path.name for path in (tmp_path / "shots").iterdir()} == {
        "index.html",
        "pictures.json",
        gallery.pictures[0].file,
    }
    assert artifacts.load(Gallery, tmp_path / "shots" / "pictures.json") == gallery


def test_a_task_that_tells_nothing_is_scored_all_the_same(folder: Path, task: Task, tmp_path: Path) -> None:
    assert shoot(folder, Silent(task), tmp_path / "shots") is None  # type: ignore[arg-type]
    assert not (tmp_path / "shots").exists()


# --- a detector -------------------------------------------------------------------------------------------------


class DarkIsText(torch.nn.Module):
    """A DBNet of one layer: the probability of text is high where all channels are dark."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 1, 1)
        torch.nn.init.constant_(self.conv.weight, -10.0)
        torch.nn.init.constant_(self.conv.bias, 0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.conv(x))


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Three white receipts with a black line each; the third's label is elsewhere."""
    lines = []
    for number, top in enumerate((20, 60, 90)):
        image = np.full((160, 128, 3), 255, np.uint8)
        image[min(top, 60) : min(top, 60) + 16, 16:112] = 0
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
        corners = [[12, top - 4], [116, top - 4], [116, top + 20], [12, top + 20]]
        lines.append(f'{number}.png\t[{{"transcription": "a", "points": {corners}}}]\n')
    (tmp_path / "labels.txt").write_text("".join(lines))
    return tmp_path


def test_a_detectors_boxes_are_drawn_on_the_scene(scenes: Path) -> None:
    task = make_task("detection", train=(), val=[scenes / "labels.txt"], input_shape=(3, 64, 64), side=160)
    model = from_torch(DarkIsText(), torch.zeros(1, 3, 64, 64))
    examined, gallery = score_with_pictures(model, task, scenes / "shots", name="dark", count=3, threads=1)
    assert gallery is not None
    assert (examined.score.details["regions"], gallery.wrong) == (3, (1,))
    (picture,) = gallery.pictures
    assert (picture.name, picture.label, picture.readings[0].text) == ("2.png", "1 region", "0 of 1 found, 1 wrong")
    drawn = cv2.imread(str(scenes / "shots" / picture.readings[0].file))
    assert drawn.shape == (160, 128, 3)
    coloured = np.ptp(drawn.astype(int), axis=2) > 60
    assert coloured[84:88, 40:90].any()  # the label's upper edge
    assert coloured[52:60, 40:90].any()  # the box found above it
    assert not coloured[:40].any()


def test_a_scan_at_another_side_is_another_scan(scenes: Path) -> None:
    task = make_task("detection", train=(), val=[scenes / "labels.txt"], input_shape=(3, 64, 64), side=160)
    assert (side_of(task), side_of(at_side(task, 128))) == (160, 128)
    assert at_side(task, 128).fingerprint() != task.fingerprint() == at_side(task, 160).fingerprint()


# --- refused, before the model is run ---------------------------------------------------------------------------


@pytest.fixture
def no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def must_not(*_: object, **__: object) -> None:
        raise AssertionError("the model was run")

    monkeypatch.setattr("compress.pipeline.evaluation.Session", must_not)


@pytest.mark.usefixtures("no_session")
def test_a_folder_with_other_files(folder: Path, task: Task) -> None:
    with pytest.raises(CompressError, match=r"--images-out: .* holds other files\. Give an empty or a new folder"):
        score_with_pictures(folder / "model.onnx", task, folder / "val", name="m", count=3)


@pytest.mark.usefixtures("no_session")
def test_a_file_in_place_of_the_folder(folder: Path, task: Task) -> None:
    with pytest.raises(OutputError, match=r"model\.onnx: cannot be written \(.*\)\. Choose another folder with --im"):
        score_with_pictures(folder / "model.onnx", task, folder / "model.onnx", name="m", count=3)


@pytest.mark.usefixtures("no_session")
def test_a_damaged_list_of_earlier_pictures(folder: Path, task: Task, tmp_path: Path) -> None:
    (tmp_path / "pictures.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"pictures\.json: not readable as JSON .* Delete it"):
        score_with_pictures(folder / "model.onnx", task, tmp_path, name="m", count=3)
