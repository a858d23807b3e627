"""Tasks on models that are fed and read otherwise than PP-OCR's: the same scores, losses and gradients."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from compress.data.labels import ListRules
from compress.data.processing import make_processing
from compress.errors import DataError, ModelError
from compress.tasks.classification import DirectionTask
from compress.tasks.detection import DetectionTask
from compress.tasks.recognition import RecognitionTask

LOOSE = ListRules(allow_overlap=True)
TEXTS = ["ab", "ba", "aab", "b"]


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    for number, _ in enumerate(TEXTS):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 20, 3), (10, 20, 60 * number), np.uint8))
    (tmp_path / "dict.txt").write_text("a\nb\n")
    (tmp_path / "labels.txt").write_text("".join(f"{number}.png\t{text}\n" for number, text in enumerate(TEXTS)))
    return tmp_path / "labels.txt"


def recogniser(crops: Path, **changes: Any) -> RecognitionTask:
    processing = make_processing("recognition", changes=changes)
    shape = (processing.channels, 8, 24)
    charset = crops.parent / "dict.txt"
    return RecognitionTask(
        [crops], [crops], charset=charset, use_space=False, input_shape=shape, processing=processing, rules=LOOSE
    )


def logits(texts: list[str], classes: str, blank: int) -> np.ndarray:
    """[N, 8, 3] that read as these texts; `classes` are the characters by class, with a dot for the blank."""
    outputs = np.zeros((len(texts), 8, len(classes)), np.float32)
    outputs[:, :, blank] = 3
    for row, text in zip(outputs, texts, strict=True):
        for place, character in enumerate(text):
            row[2 * place, classes.index(character)] = 5
    return outputs


def softmax(values: np.ndarray) -> np.ndarray:
    return np.exp(values) / np.exp(values).sum(-1, keepdims=True)


@pytest.mark.parametrize(("blank", "classes", "index"), [("first", ".ab", 0), ("last", "ab.", 2), (1, "a.b", 1)])
def test_a_recogniser_s_blank_may_be_any_class(crops: Path, blank: Any, classes: str, index: int) -> None:
    outputs = softmax(logits(TEXTS, classes, index))
    task = recogniser(crops, blank=blank)
    assert task.evaluate(lambda images: outputs).metric == 1.0
    batch = next(task.train_batches(epoch=1, batch_size=4, seed=0))
    shown = torch.from_numpy(outputs[list(batch.targets.indices)])
    order = [classes.index(each) for each in ".ab"]  # as PP-OCR's would be
    usual = recogniser(crops)
    same = next(usual.train_batches(epoch=1, batch_size=4, seed=0))
    torch.testing.assert_close(task.loss(shown, batch), usual.loss(shown[..., order], same))


def test_a_blank_that_the_charset_does_not_make(crops: Path) -> None:
    with pytest.raises(DataError, match=r"blank: got 3, but the charset's 2 characters .* from 0 to 2"):
        recogniser(crops, blank=3)


@pytest.mark.parametrize("form", ["logits", "log_probabilities"])
@pytest.mark.parametrize("layout", ["ntk", "tnk"])
def test_logits_and_steps_first_score_and_train_as_probabilities_do(crops: Path, form: str, layout: str) -> None:
    raw = logits(["ab", "ab", "aab", "b"], ".ab", 0)  # the second is wrong
    given = raw if form == "logits" else np.log(softmax(raw))
    task, usual = recogniser(crops, outputs=form, layout=layout), recogniser(crops)

    def turned(values: np.ndarray) -> np.ndarray:
        return values.swapaxes(0, 1) if layout == "tnk" else values

    assert task.evaluate(lambda images: turned(given)) == usual.evaluate(lambda images: softmax(raw))
    assert task.evaluate(lambda images: turned(given)).metric == 0.75
    np.testing.assert_allclose(task.probabilities(turned(given)), softmax(raw), rtol=1e-5)
    batch = next(usual.train_batches(epoch=1, batch_size=4, seed=0))
    order = list(batch.targets.indices)
    theirs = torch.from_numpy(turned(given[order]).copy())
    ours = torch.from_numpy(softmax(raw)[order])
    torch.testing.assert_close(task.loss(theirs, batch), usual.loss(ours, batch))
    teacher = np.random.default_rng(0).normal(size=raw.shape).astype(np.float32)
    other = teacher if form == "logits" else np.log(softmax(teacher))
    torch.testing.assert_close(
        task.distillation_loss(theirs, torch.from_numpy(turned(other).copy())),
        usual.distillation_loss(ours, torch.from_numpy(softmax(teacher))),
    )


def test_probabilities_that_are_logits_are_refused_with_the_key(crops: Path) -> None:
    task = recogniser(crops)
    batch = next(task.train_batches(epoch=1, batch_size=4, seed=0))
    with pytest.raises(ModelError, match=r"not probabilities .* task\.outputs"):
        task.loss(torch.from_numpy(logits(TEXTS, ".ab", 0)), batch)


def test_lowercase_labels(crops: Path) -> None:
    crops.write_text("".join(f"{number}.png\t{text.upper()}\n" for number, text in enumerate(TEXTS)))
    task = recogniser(crops, lowercase=True)
    assert task.evaluate(lambda images: softmax(logits(TEXTS, ".ab", 0))).metric == 1.0


def test_gray_images_stretched(crops: Path) -> None:
    task = recogniser(crops, color="gray", resize="stretch", mean=0.0, std=1.0)
    (batch,) = list(task.calibration_batches(4, 4))
    assert batch.shape == (4, 1, 8, 24)
    # 0.114 B + 0.587 G + 0.299 R, rounded
    assert sorted(round(float(image[0, 0, -1]) * 255) for image in batch) == [13, 31, 49, 67]
    with pytest.raises(DataError, match=r"widths: got \[12, 24\], but images are stretched"):
        RecognitionTask(
            [],
            [crops],
            charset=crops.parent / "dict.txt",
            use_space=False,
            input_shape=(1, 8, 24),
            widths=[12, 24],
            processing=task.processing,
            rules=LOOSE,
        )


def test_settings_are_part_of_the_identity_unless_they_are_ppocr_s(crops: Path) -> None:
    prints = {recogniser(crops, **changes).fingerprint() for changes in ({}, {"blank": "first"}, {"blank": "last"})}
    assert len(prints) == 2


@pytest.mark.parametrize("form", ["logits", "log_probabilities"])
def test_a_classifier_of_logits(crops: Path, form: str) -> None:
    raw = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    given = raw if form == "logits" else np.log(softmax(raw))

    def task(**changes: Any) -> DirectionTask:
        processing = make_processing("classification", changes=changes)
        return DirectionTask([crops], [crops], input_shape=(3, 8, 24), processing=processing, rules=LOOSE)

    theirs, usual = task(outputs=form), task()
    ours = usual.examine(lambda images: softmax(raw))
    found = theirs.examine(lambda images: given)
    assert found.score == ours.score
    assert [case.found for case in found.cases] == [case.found for case in ours.cases]
    batch = next(usual.train_batches(epoch=1, batch_size=8, seed=0))
    torch.testing.assert_close(
        theirs.loss(torch.from_numpy(given), batch), usual.loss(torch.from_numpy(softmax(raw)), batch)
    )
    teacher = torch.from_numpy(np.random.default_rng(1).normal(size=(8, 2)).astype(np.float32))
    other = teacher if form == "logits" else teacher.log_softmax(-1)
    torch.testing.assert_close(
        theirs.distillation_loss(torch.from_numpy(given), other),
        usual.distillation_loss(torch.from_numpy(softmax(raw)), teacher.softmax(-1)),
    )


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    image = np.zeros((50, 100, 3), np.uint8)
    image[10:20, 20:70] = 255
    cv2.imwrite(str(tmp_path / "scene.png"), image)
    points = "[[20, 10], [70, 10], [70, 20], [20, 20]]"
    (tmp_path / "scenes.txt").write_text(f'scene.png\t[{{"transcription": "text", "points": {points}}}]\n')
    return tmp_path / "scenes.txt"


def white_is_text(images: np.ndarray, shrunk: int) -> np.ndarray:
    """Logits of a map: white pixels are text, but for a margin: boxes grow by one, of high text by a wider one."""
    inner = np.stack([cv2.erode(image, np.ones((shrunk, shrunk))) for image in images[:, 0]])
    return np.where(inner > 0.5, 6.0, -6.0)[:, None].astype(np.float32)


@pytest.mark.parametrize(
    "changes",
    [
        {"resize": "pad", "pad_side": "center"},
        {"resize": "pad"},
        {"resize": "stretch"},
        {"resize": "limit"},
        {"resize": "pad", "color": "gray"},
    ],
)
def test_a_detector_of_logits_and_fixed_size(scenes: Path, changes: dict[str, Any]) -> None:
    """The box is found where it lies in the scene, wherever the scene lies in the input."""
    processing = make_processing("detection", changes={"outputs": "logits", "mean": 0.0, "std": 1.0, **changes})
    shape = (processing.channels, 128, 128)
    task = DetectionTask([scenes], [scenes], input_shape=shape, side=640, processing=processing, rules=LOOSE)
    fed: list[tuple[int, ...]] = []

    def predict(images: np.ndarray) -> np.ndarray:
        fed.append(images.shape)
        return white_is_text(images, 15 if changes["resize"] == "stretch" else 5)

    assert task.evaluate(predict).metric == 1.0
    assert fed == [(1, *shape)] if changes["resize"] != "limit" else [(1, 3, 64, 96)]
    for batch in (next(task.calibration_batches(1, 1)), next(task.train_batches(epoch=1, batch_size=1, seed=0)).images):
        assert tuple(batch.shape) == (1, *shape)


def test_a_detector_s_losses_of_logits(scenes: Path) -> None:
    def task(**changes: Any) -> DetectionTask:
        processing = make_processing("detection", changes=changes)
        return DetectionTask([scenes], [scenes], input_shape=(3, 64, 64), processing=processing, rules=LOOSE)

    theirs, usual = task(outputs="logits"), task()
    batch = next(usual.train_batches(epoch=1, batch_size=1, seed=0))
    raw, teacher = torch.randn(2, 1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(theirs.loss(raw, batch), usual.loss(raw.sigmoid(), batch))
    torch.testing.assert_close(
        theirs.distillation_loss(raw, teacher), usual.distillation_loss(raw.sigmoid(), teacher.sigmoid())
    )
    with pytest.raises(ModelError, match=r"task\.outputs: logits"):
        usual.loss(5 * raw, batch)
    with pytest.raises(DataError, match=r"^side: scenes are of the input's size \(resize: pad\)\. Remove it\.$"):
        task(resize="pad").with_side(640)
