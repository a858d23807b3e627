"""The detection task: scoring at any size, batches that depend on seed and epoch alone, and outputs that do not fit."""

import json
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from compress.data.db_targets import make_maps
from compress.data.labels import ListRules
from compress.data.regions import Region
from compress.errors import CompressError, DataError, ModelError
from compress.tasks import detection, scene_crops
from compress.tasks.base import Batch
from compress.tasks.db_boxes import BoxSettings
from compress.tasks.db_loss import DbTargets, db_loss, map_distillation, probability_loss
from compress.tasks.detection import DetectionTask

LOOSE = ListRules(max_skipped=1.0, allow_overlap=True)
"""Most of these tests score on what they train on, and some skip much of it."""
SIZES = [(64, 96), (100, 140), (128, 64), (90, 200), (64, 64)]
"""(height, width) of the scenes; the last has no text."""


def write_scenes(folder: Path, count: int = 5, text: str = "a") -> Path:
    """White scenes, each but the last of 5 with a black rectangle of text."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        height, width = SIZES[number % 5]
        image = np.full((height, width, 3), 255, np.uint8)
        regions = []
        if number % 5 != 4:
            left, top, right, bottom = 8 + number, 10, width - 10, 36 + 2 * number
            image[top:bottom, left:right] = 0
            points = [[left, top], [right, top], [right, bottom], [left, bottom]]
            regions = [{"transcription": text, "points": points}]
        cv2.imwrite(str(folder / f"{number}.png"), image)
        lines.append(f"{number}.png\t{json.dumps(regions)}\n")
    (folder / "labels.txt").write_text("".join(lines))
    return folder / "labels.txt"


@pytest.fixture
def make(tmp_path: Path):
    path = write_scenes(tmp_path / "data")

    def build(**settings) -> DetectionTask:
        values = {"train": [path], "val": [path], "input_shape": (3, 64, 96), "side": 96, "rules": LOOSE, **settings}
        return DetectionTask(values.pop("train"), values.pop("val"), **values)

    return build


def dark_is_text(images: np.ndarray) -> np.ndarray:
    """What a perfect DBNet gives for the dark rectangle: [N, 1, H, W]."""
    return np.stack([perfect_map(image[0] < 0)[None] for image in images])


def perfect_map(dark: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(dark)
    regions = []
    if len(rows):
        left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)
        regions = [Region(corners, "a")]
    return make_maps(regions, *dark.shape, threshold=False).text


# --- score --------------------------------------------------------------------------------------------------------


def test_a_perfect_detector(make):
    score = make().evaluate(dark_is_text)
    assert (score.metric, score.name, score.count) == (1.0, "hmean", 5)
    assert score.details == {"precision": 1.0, "recall": 1.0, "regions": 4.0, "boxes": 4.0}


def test_boxes_in_an_image_without_text_cost_precision(make):
    def predict(images):
        found = dark_is_text(images)
        if not found.any():
            found[:, :, 10:30, 10:40] = 1
        return found

    score = make().evaluate(predict)
    assert (score.details["precision"], score.details["recall"]) == (pytest.approx(4 / 5), 1.0)


@pytest.mark.parametrize("side", [32, 96, 160, 1280])
def test_each_image_is_fed_alone_at_its_own_size(make, side):
    """Longest side down to `side`, never up, multiples of 32; PaddleOCR's normalisation."""
    shapes = []

    def predict(images):
        shapes.append(images.shape)
        assert images.dtype == np.float32
        assert images.max() == pytest.approx((1 - 0.406) / 0.225, abs=1e-4)  # white, in the last channel
        return dark_is_text(images)

    make(side=side).evaluate(predict)
    expected = []
    for height, width in SIZES:
        factor = min(1, side / max(height, width))
        expected.append((1, 3, *(max(32, round(int(size * factor) / 32) * 32) for size in (height, width))))
    assert shapes == expected


def test_a_limited_score_uses_that_many_and_always_the_same(make):
    seen = []

    def predict(images):
        seen.append(float(images.sum()))
        return dark_is_text(images)

    task = make()
    assert task.evaluate(predict, limit=3).count == 3
    task.evaluate(predict, limit=3)
    assert len(seen) == 6
    assert seen[:3] == seen[3:]
    assert task.evaluate(predict, limit=1000).count == 5


def test_processes_change_nothing(make):
    here, there = (make(processes=processes).examine(dark_is_text, 4) for processes in (0, 2))
    assert here.score == there.score
    assert [(case.name, case.label, case.found, case.error) for case in here.cases] == [
        (case.name, case.label, case.found, case.error) for case in there.cases
    ]
    assert make(processes=1).fingerprint() == make().fingerprint()
    with pytest.raises(CompressError, match=r"processes: got -2\. Must be 0"):
        make(processes=-2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_no_text(make, value):
    examination = make().examine(lambda images: np.full((1, 1, *images.shape[2:]), value, np.float32))
    assert examination.score.metric == 0
    assert {case.found for case in examination.cases} == {None}


def test_one_value_that_is_not_finite_spoils_no_other(make):
    def predict(images):
        found = dark_is_text(images)
        found[0, 0, 0, 0] = np.inf
        return found

    assert make().evaluate(predict).metric == 1.0


def test_logits_are_refused(make):
    with pytest.raises(ModelError, match=r"model: its output is not probabilities \(from -4 to 4\).*with its sigmoid"):
        make().evaluate(lambda images: dark_is_text(images) * 8 - 4)


def test_a_step_of_an_int8_file_beyond_one_is_not(make):
    assert make().evaluate(lambda images: dark_is_text(images) * 1.0005).metric == 1.0


@pytest.mark.parametrize("shape", [(1, 2), (1, 40, 97), (1, 2, 64, 96)])
def test_models_of_other_tasks(make, shape):
    with pytest.raises(DataError, match=r"output shape \[1, .*\] does not fit detection. Expected \[N, 1, H, W\]"):
        make().evaluate(lambda images: np.zeros(shape, np.float32))
    with pytest.raises(DataError, match=r"does not fit detection.*Check task.kind"):
        make().check_model((None, *shape[1:]))


@pytest.mark.parametrize("shape", [(None, None, None, None), (1, 1, 640, 640), (None, 1, None, None)])
def test_models_that_fit(make, shape):
    make().check_model(shape)


def test_a_map_of_another_size_than_the_image_is_scaled(make):
    task = make(val=[make()._val[0].image.parent / "labels.txt"], side=96)
    small = task.evaluate(lambda images: np.ascontiguousarray(dark_is_text(images)[:, :, ::2, ::2]))
    assert small.count == 5
    assert small.metric > 0.5


# --- memory -------------------------------------------------------------------------------------------------------


def test_resized_images_are_kept_up_to_a_limit(make, monkeypatch):
    whole = make()
    expected = whole.evaluate(dark_is_text)
    assert len(whole._cache) == 5
    limit = sum(image.nbytes for image, _, _ in list(whole._cache.values())[:2])
    monkeypatch.setattr(detection, "CACHE_BYTES", limit)
    task = make()
    for _ in range(2):
        assert task.evaluate(dark_is_text) == expected
        assert sum(image.nbytes for image, _, _ in task._cache.values()) <= limit


def test_another_side_has_its_own_images(make):
    task = make()
    task.evaluate(dark_is_text)
    smaller = task.with_side(64)
    shapes = []
    smaller.evaluate(lambda images: shapes.append(images.shape) or dark_is_text(images))
    assert max(max(shape) for shape in shapes) == 64
    assert (task.side, smaller.side) == (96, 64)
    assert task.fingerprint() != smaller.fingerprint() == make(side=64).fingerprint()
    assert all(max(image.shape) == 96 for image, _, _ in task._cache.values() if max(image.shape) > 64)
    with pytest.raises(DataError, match=r"got 100. Must be multiples of 32, e.g. 96"):
        task.with_side(100)


# --- batches ------------------------------------------------------------------------------------------------------


def epoch_of(task: DetectionTask, **settings) -> list[Batch]:
    return list(task.train_batches(**{"epoch": 0, "batch_size": 2, "seed": 0, **settings}))


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.images, b.images) and all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))
        for a, b in zip(one, other, strict=True)
    )


def tensors(batch: Batch) -> list[torch.Tensor]:
    return [value for value in vars(batch.targets).values() if value is not None]


def test_batches_are_crops_with_their_targets(make):
    batches = epoch_of(make())
    assert len(batches) == make().train_steps(2) == 2
    for batch in batches:
        assert batch.images.shape == (2, 3, 64, 96)
        assert [value.shape for value in tensors(batch)] == [(2, 64, 96)] * 2
        assert {value.dtype for value in (batch.images, *tensors(batch))} == {torch.float32}
    assert [len(tensors(batch)) for batch in epoch_of(make(threshold_maps=True))] == [4, 4]


def test_same_epoch_and_seed_give_the_same_batches_and_others_do_not(make):
    first = epoch_of(make(threshold_maps=True))
    assert same(first, epoch_of(make(threshold_maps=True)))
    assert not same(first, epoch_of(make(threshold_maps=True), epoch=1))
    assert not same(first, epoch_of(make(threshold_maps=True), seed=1))


def test_batches_do_not_depend_on_threads_and_what_else_is_drawn(make):
    task = make()
    expected = [epoch_of(task, epoch=epoch) for epoch in range(3)]
    found: dict[int, list[Batch]] = {}

    def work(epoch: int) -> None:
        np.random.seed(epoch)
        found[epoch] = epoch_of(task, epoch=epoch)

    threads = [threading.Thread(target=work, args=(epoch,)) for epoch in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(found[epoch], expected[epoch]) for epoch in range(3))


def test_crops_may_have_their_own_size(make):
    task = make(crop=160)
    assert {batch.images.shape for batch in epoch_of(task)} == {(2, 3, 160, 160)}
    assert next(task.calibration_batches(1, 1)).shape == (1, 3, 64, 96)


def test_a_crop_does_not_depend_on_the_batch_size(make):
    few, many = (torch.cat([batch.images for batch in epoch_of(make(), batch_size=size)]) for size in (1, 5))
    assert torch.equal(few, many)


def test_text_is_where_the_dark_pixels_are(make):
    """Without augmentation: inside the black rectangles, and no rectangle without it."""
    for batch in epoch_of(make(augment="none"), batch_size=5):
        for image, text, counted in zip(batch.images, batch.targets.text, batch.targets.counted, strict=True):
            dark = (image[0] < 0) & (image.abs().sum(dim=0) < 6)
            assert (dark | (counted == 0))[text > 0].all()


def test_text_of_other_scenes_is_pasted_in(make, monkeypatch):
    monkeypatch.setattr(scene_crops, "PASTE_SHARE", 1.0)
    task = make(input_shape=(3, 192, 192))
    pasted = sum(float(batch.targets.text.sum()) for batch in epoch_of(task, batch_size=5))
    monkeypatch.setattr(scene_crops, "PASTE_SHARE", 0.0)
    assert pasted != sum(float(batch.targets.text.sum()) for batch in epoch_of(task, batch_size=5))


def test_fewer_images_than_a_batch_are_one_batch(make):
    assert [len(batch.images) for batch in epoch_of(make(), batch_size=64)] == [5]


def test_training_on_scenes_without_text(make, tmp_path):
    """Crops of nothing: text anywhere costs more than none."""
    folder = tmp_path / "bare"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.full((80, 80, 3), 200, np.uint8))
    (folder / "labels.txt").write_text("a.png\t[]\n")
    task = make(train=[folder / "labels.txt"])
    (batch,) = epoch_of(task)
    assert batch.targets.text.max() == 0
    losses = [task.loss(torch.full((1, 1, 64, 96), value), batch).item() for value in (0.0, 0.1, 0.9)]
    assert np.isfinite(losses).all()
    assert losses == sorted(losses)


def test_calibration_crops_are_unaugmented_always_the_same_and_at_most_as_many_as_asked(make):
    task = make()
    batches = list(task.calibration_batches(4, 3))
    assert [batch.shape for batch in batches] == [(3, 3, 64, 96), (1, 3, 64, 96)]
    assert all(np.array_equal(a, b) for a, b in zip(batches, task.calibration_batches(4, 3), strict=True))
    black, white = ((value - 0.485) / 0.229 for value in (0, 1))
    assert sum(len(batch) for batch in task.calibration_batches(100, 3)) == 5
    values = np.concatenate([batch[:, 0].ravel() for batch in batches])
    assert values.min() == pytest.approx(black, abs=1e-4)
    assert values.max() == pytest.approx(white, abs=1e-4)


# --- losses -------------------------------------------------------------------------------------------------------


@pytest.fixture
def batch() -> Batch:
    text = (torch.rand(2, 32, 32) < 0.2).float()
    targets = DbTargets(text, torch.ones_like(text), torch.rand_like(text), torch.ones_like(text))
    return Batch(torch.zeros(2, 3, 32, 32), targets)


def test_the_loss_is_by_the_number_of_maps(make, batch):
    one, three = torch.rand(2, 1, 32, 32), torch.rand(2, 3, 32, 32)
    assert make().loss(one, batch) == probability_loss(one[:, 0], batch.targets)
    assert make().loss(three, batch) == db_loss(three, batch.targets)


def test_three_maps_without_targets_for_them(make, batch):
    bare = Batch(batch.images, DbTargets(batch.targets.text, batch.targets.counted))
    with pytest.raises(ModelError, match=r"shape \[2, 3, 32, 32\], three maps.* or make the task with threshold_maps"):
        make().loss(torch.rand(2, 3, 32, 32), bare)


@pytest.mark.parametrize("shape", [(2, 2), (2, 1, 16, 16), (2, 2, 32, 32), (2, 32, 32)])
def test_outputs_of_another_size(make, batch, shape):
    with pytest.raises(ModelError, match=r"model: output shape \[2, .*\] for images \[2, 3, 32, 32\]. Expected \[N, 1"):
        make().loss(torch.rand(shape), batch)


def test_training_on_logits_is_refused(make, batch):
    with pytest.raises(ModelError, match=r"model: its output is not probabilities .*export the model with its sigmoid"):
        make().loss(torch.randn(2, 1, 32, 32) * 3, batch)


def test_nan_is_left_to_training_to_name(make, batch):
    assert make().loss(torch.full((2, 1, 32, 32), torch.nan), batch).isnan()


@pytest.mark.parametrize("dilate", [False, True])
def test_distillation_is_of_the_probability_maps(make, dilate):
    student, teacher = torch.rand(2, 3, 32, 32), torch.rand(2, 1, 32, 32)
    expected = map_distillation(student[:, 0], teacher[:, 0], dilate)
    assert make(dilate_teacher=dilate).distillation_loss(student, teacher) == expected


@pytest.mark.parametrize("dilate", [False, True])
def test_students_are_compared_without_dilation(make, dilate):
    """Each the other's dilated teacher, they would find more text with every step."""
    student, other = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    expected = map_distillation(student[:, 0], other[:, 0], dilate=False)
    assert make(dilate_teacher=dilate).mutual_loss(student, other) == expected


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (torch.rand(2, 2), r"teacher: output shape \[2, 2\], the model's is \[2, 1, 32, 32\]. Use the detector"),
        (torch.rand(2, 1, 16, 16), r"teacher: output shape \[2, 1, 16, 16\]"),
        (torch.randn(2, 1, 32, 32) * 4, r"teacher: its output is not probabilities"),
    ],
)
def test_teachers_that_do_not_fit(make, teacher, said):
    with pytest.raises(ModelError, match=said):
        make().distillation_loss(torch.rand(2, 1, 32, 32), teacher)


# --- data and settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"input_shape": (3, 100, 96)}, r"input, side.*: got 100. Must be multiples of 32, e.g. 96"),
        ({"input_shape": (3, 96, 0)}, r"input, side.*: got 0. Must be multiples of 32, e.g. 32"),
        ({"crop": 100}, r"input, side.*: got 100. Must be multiples of 32, e.g. 96"),
        ({"side": 1000}, r"input, side.*: got 1000. Must be multiples of 32, e.g. 992"),
        ({"input_shape": (1, 96, 96)}, r"input: got 1 channels. Must be 3"),
        ({"val": []}, r"val: no images to validate on. Name at least one label list"),
    ],
)
def test_settings_that_make_no_sense(make, settings, said):
    with pytest.raises(DataError, match=said):
        make(**settings)


def test_training_without_training_data(make):
    task = make(train=[])
    assert task.evaluate(dark_is_text).metric == 1.0
    with pytest.raises(DataError, match="train: no images to train on"):
        task.train_batches(epoch=0, batch_size=1, seed=0)
    with pytest.raises(DataError, match="train: no images to train on"):
        next(task.calibration_batches(1, 1))


def test_what_was_skipped_in_both_lists_is_told(make, tmp_path):
    path = write_scenes(tmp_path / "more")
    (path.parent / "0.png").unlink()
    task = make(train=[path], val=[path])
    assert task.warnings()[:2] == (f"{path}: 1 of 5 images skipped, missing: 0.png",) * 2
    assert task.evaluate(dark_is_text).skipped == ("1 of 5 images skipped",)
    assert (task.train_steps(1), task.evaluate(dark_is_text).count) == (4, 4)


def test_an_image_that_is_gone_by_then_is_named_from_the_thread_as_well(make, tmp_path):
    path = write_scenes(tmp_path / "gone")
    task = make(train=[path], val=[path])
    for file in path.parent.glob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"\.png: cannot be decoded"):
        epoch_of(task)
    with pytest.raises(DataError, match=r"\.png: cannot be decoded"):
        task.evaluate(dark_is_text)


def test_the_fingerprint_is_of_content_and_settings_not_of_places(make, tmp_path):
    here, there = (write_scenes(tmp_path / name) for name in ("here", "there"))
    other = write_scenes(tmp_path / "other", text="###")

    def of(train, val, **settings):
        return make(train=[train], val=[val], **settings).fingerprint()

    assert of(here, here) == of(there, there)
    different = [
        of(here, here),
        of(here, other),
        of(other, here),
        of(here, here, side=128),
        of(here, here, augment="none"),
        of(here, here, dilate_teacher=True),
        of(here, here, input_shape=(3, 64, 64)),
        of(here, here, crop=32),
        of(here, here, boxes=detection.BoxSettings(threshold=0.2)),
    ]
    assert len(set(different)) == len(different)


# --- images without labels ----------------------------------------------------------------------------------------


def test_unlabelled_crops_come_beside_the_labelled_ones_and_nothing_in_them_counts(make, tmp_path: Path):
    """They change neither the labelled crops nor the loss of the labels; only distillation sees them."""
    others = write_scenes(tmp_path / "others", count=3)
    plain, more = make(), make(unlabelled=[others.parent])
    assert plain.fingerprint() != more.fingerprint()
    one = next(plain.train_batches(epoch=1, batch_size=3, seed=0))
    both = next(more.train_batches(epoch=1, batch_size=3, seed=0))
    assert (len(one.images), len(both.images)) == (3, 6)
    torch.testing.assert_close(both.images[:3], one.images)
    assert both.targets.counted[3:].sum() == 0
    assert both.targets.counted[:3].sum() > 0
    outputs = torch.rand(6, 1, 64, 96, generator=torch.Generator().manual_seed(0))
    changed = outputs.clone()
    changed[3:] = 0.5
    torch.testing.assert_close(more.loss(outputs, both), more.loss(changed, both))
    teacher = torch.full_like(outputs, 0.2)
    assert more.distillation_loss(outputs, teacher) != more.distillation_loss(changed, teacher)


def test_unlabelled_crops_repeat_for_an_epoch_and_differ_between_epochs(make, tmp_path: Path):
    task = make(unlabelled=[write_scenes(tmp_path / "others", count=3)])

    def crops(epoch: int) -> torch.Tensor:
        return next(task.train_batches(epoch=epoch, batch_size=3, seed=0)).images[3:]

    torch.testing.assert_close(crops(1), crops(1))
    assert not torch.equal(crops(1), crops(2))


def test_unlabelled_crops_have_threshold_maps_too(make, tmp_path: Path):
    task = make(unlabelled=[write_scenes(tmp_path / "others", count=3)], threshold_maps=True)
    batch = next(task.train_batches(epoch=1, batch_size=2, seed=0))
    assert batch.targets.threshold_counted[2:].sum() == 0
    assert torch.isfinite(task.loss(torch.full((4, 3, 64, 96), 0.4), batch))


# --- post-processing is the user's --------------------------------------------------------------------------------


def test_its_settings_decide_what_is_found_and_are_said(make):
    """Text at probability 0.5: no box of PP-OCR's settings has a mean of 0.6, one of a lower threshold has."""

    def faint(images):
        return dark_is_text(images) * np.float32(0.5)

    assert make().evaluate(faint).details["boxes"] == 0
    task = make(boxes=BoxSettings(box_threshold=0.4))
    assert task.evaluate(faint).metric == 1.0
    assert task.postprocessing() == {
        "threshold": 0.3,
        "box_threshold": 0.4,
        "unclip_ratio": 1.5,
        "max_candidates": 1000,
    }
    assert make(boxes=BoxSettings(threshold=0.5)).evaluate(faint).details["boxes"] == 0


def test_each_of_its_settings_is_in_the_fingerprint(make):
    changes = ({}, {"threshold": 0.2}, {"box_threshold": 0.5}, {"unclip_ratio": 2.0}, {"max_candidates": 9})
    assert len({make(boxes=BoxSettings(**change)).fingerprint() for change in changes}) == len(changes)
    assert make().fingerprint() == make(boxes=BoxSettings()).fingerprint()


def test_the_losses_follow_its_threshold(make):
    task, plain = make(boxes=BoxSettings(threshold=0.6)), make()
    (batch, *_) = task.train_batches(epoch=0, batch_size=2, seed=0)
    maps, teacher = torch.rand(2, 2, 1, 64, 96).unbind()
    assert task.loss(maps, batch) == probability_loss(maps[:, 0], batch.targets, 0.6) != plain.loss(maps, batch)
    distance = task.distillation_loss(maps, teacher)
    assert distance == map_distillation(maps[:, 0], teacher[:, 0], False, 0.6) != plain.distillation_loss(maps, teacher)


# --- rules --------------------------------------------------------------------------------------------------------


def test_images_shared_by_lists(make, tmp_path):
    """Unlabelled ones may be among those trained on, not among those scored on."""
    train, val = write_scenes(tmp_path / "train", 2), write_scenes(tmp_path / "val", 5)
    images = sorted(val.parent.glob("*.png"))
    for image in images[:2]:
        cv2.imwrite(str(image), 255 - cv2.imread(str(image)))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.png").write_bytes((train.parent / "1.png").read_bytes())
    kept = {"train": [train], "val": [val], "unlabelled": [tmp_path / "folder"], "rules": ListRules()}
    assert make(**kept).warnings() == ()
    (tmp_path / "folder" / "y.png").write_bytes(images[3].read_bytes())
    with pytest.raises(
        DataError, match=r"val: 1 of 5 images is in unlabelled, too, the first is .*val/3.png \(there .*y"
    ):
        make(**kept)
    (tmp_path / "folder" / "y.png").unlink()
    images[2].write_bytes((train.parent / "0.png").read_bytes())
    with pytest.raises(DataError, match=r"val: 1 of 5 images is in train, too, the first is .*val/2.png"):
        make(**kept)


def test_regions_that_were_left_out_are_said_beside_the_score(make, tmp_path):
    path = write_scenes(tmp_path / "regions")
    text = path.read_text().replace(
        "[]", json.dumps([{"transcription": "a", "points": [[900, 0], [990, 0], [990, 9]]}])
    )
    path.write_text(text)
    score = make(train=[], val=[path]).evaluate(dark_is_text)
    assert (score.metric, score.skipped) == (1.0, ("1 of 5 regions skipped",))
    with pytest.raises(DataError, match=r"1 of 5 regions is outside the image: 4.png. At most 1% may be"):
        make(train=[], val=[path], rules=ListRules())


def test_rules_are_no_part_of_the_fingerprint(make, tmp_path):
    """They decide whether there is a score, not which."""
    prints = {make(train=[], rules=rules).fingerprint() for rules in (LOOSE, ListRules(), ListRules(roots=(tmp_path,)))}
    assert len(prints) == 1
