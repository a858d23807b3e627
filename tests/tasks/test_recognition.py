"""The recognition task: what it makes of texts and widths, its batches, losses and score, and what it refuses."""

import itertools
import math
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
import torch

from compress.data.labels import ListRules
from compress.data.splices import SOURCES
from compress.errors import DataError, ModelError
from compress.measure.intervals import ratio_of_sums
from compress.tasks.base import Batch
from compress.tasks.ctc import Targets
from compress.tasks.recognition import RecognitionTask

SHAPE = (3, 16, 64)
LOOSE = ListRules(max_skipped=1.0, allow_overlap=True)
"""Most of these tests score on what they train on, and some skip much of it."""
TEXTS = ["ab", "ba", "a b", "aab", "b", "abab", "ba b", "a", "bb", "abba"]


@pytest.fixture
def charset(tmp_path):
    (tmp_path / "dict.txt").write_text("a\nb\n")
    return tmp_path / "dict.txt"


def crop(number: int, width: int) -> np.ndarray:
    """A grey crop 16 high, so that it is not resized; its brightness is its number."""
    return np.full((16, width, 3), 10 + number, np.uint8)


def write_list(folder: Path, texts: list[str], widths: list[int] | None = None) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    lines = []
    for number, text in enumerate(texts):
        cv2.imwrite(str(folder / f"{number}.png"), crop(number, widths[number] if widths else 20 + number))
        lines.append(f"{number}.png\t{text}\n")
    (folder / "labels.txt").write_text("".join(lines), encoding="utf-8")
    return folder / "labels.txt"


@pytest.fixture
def crops(tmp_path):
    return write_list(tmp_path / "crops", TEXTS)


@pytest.fixture
def make(crops, charset):
    def make_task(train=(crops,), val=(crops,), **settings):
        return RecognitionTask(train, val, charset=charset, **{"input_shape": SHAPE, "rules": LOOSE, **settings})

    return make_task


def told(task) -> tuple[str, ...]:
    """Its warnings, but for what both lists share."""
    return tuple(line for line in task.warnings() if not line.startswith("val: ") or "are in train" not in line)


def numbers_of(images: np.ndarray) -> list[int]:
    """Which crops these are, from their first pixel."""
    return [round((float(image[0, 0, 0]) * 0.5 + 0.5) * 255) - 10 for image in images]


def reader(texts, steps=16, classes=4):
    """A predict function that reads the crops as these texts: every character, and a blank behind it."""

    def predict(images):
        outputs = np.zeros((len(images), steps, classes), np.float32)
        outputs[:, :, 0] = 1
        for row, number in zip(outputs, numbers_of(images), strict=True):
            for place, character in enumerate(texts[number]):
                row[2 * place] = np.eye(classes)["\0ab ".index(character)]
        return outputs

    return predict


# --- score --------------------------------------------------------------------------------------------------------


def test_a_perfect_reader(make):
    score = make().evaluate(reader(TEXTS))
    assert (score.metric, score.name, score.count) == (1.0, "exact", 10)
    assert score.details == {"alnum": 1.0, "ned": 1.0}


def test_exact_alnum_and_edit_distance_by_hand(make):
    """One space forgotten: not exact, right by letters, 1 of 3 characters wrong. One letter of two wrong."""
    read = ["ab", "ba", "ab", "aab", "b", "abab", "ba b", "a", "ba", "abba"]
    score = make().evaluate(reader(read))
    assert score.metric == pytest.approx(0.8)
    assert score.details["alnum"] == pytest.approx(0.9)
    assert score.details["ned"] == pytest.approx((8 + 2 / 3 + 1 / 2) / 10)


@pytest.mark.parametrize("widths", [(), (24, 64), (32, 48, 64)])
def test_the_score_depends_on_neither_batch_size_nor_order_of_widths(make, widths):
    read = ["ab", "", "b", "aab", "b", "a", "ba b", "a", "b", "abba"]
    scores = [make(widths=widths, eval_batch_size=size).evaluate(reader(read)) for size in (1, 3, 64)]
    assert scores[0] == scores[1] == scores[2]
    assert scores[0].metric == pytest.approx(0.6)


def test_a_limited_score_uses_that_many_and_always_the_same(make):
    seen = []

    def predict(images):
        seen.append(numbers_of(images))
        return reader(TEXTS)(images)

    task = make()
    assert task.evaluate(predict, limit=4).count == 4
    task.evaluate(predict, limit=4)
    assert seen[0] == seen[1]
    assert task.evaluate(predict, limit=1000).count == 10


def test_nan_is_wrong(make):
    score = make().evaluate(lambda images: np.full((len(images), 8, 4), np.nan))
    assert (score.metric, score.details) == (0.0, {"alnum": 0.0, "ned": 0.0})


# --- widths -------------------------------------------------------------------------------------------------------


def test_crops_are_padded_with_zeros_to_the_smallest_width_that_holds_them(make, tmp_path):
    path = write_list(tmp_path / "w", ["a"] * 5, [1, 32, 33, 64, 200])
    shapes = {}

    def predict(images):
        for number, image in zip(numbers_of(images), images, strict=True):
            shapes[number] = (image.shape[2], int((image[0, 0] != 0).sum()))
        return reader(["a"] * 5)(images)

    make(val=[path], widths=(32, 64)).evaluate(predict)
    assert shapes == {0: (32, 1), 1: (32, 32), 2: (64, 33), 3: (64, 64), 4: (64, 64)}


def test_one_width_is_the_default(make):
    assert make().widths == (64,)
    assert {batch.images.shape[3] for batch in make().train_batches(epoch=0, batch_size=2, seed=0)} == {64}


def test_lines_wider_than_the_input_are_not_squeezed_where_widths_go_beyond_it(make, tmp_path):
    """In training, validation and calibration; MACs and latency still refer to the input's width."""
    path = write_list(tmp_path / "w", ["a"] * 3, [64, 100, 200])
    shapes = {}

    def predict(images):
        for number, image in zip(numbers_of(images), images, strict=True):
            shapes[number] = (image.shape[2], int((image[0, 0] != 0).sum()))
        return reader(["a"] * 3)(images)

    task = make(train=[path], val=[path], widths=(32, 64, 128), augment=False)
    task.evaluate(predict)
    assert shapes == {0: (64, 64), 1: (128, 100), 2: (128, 128)}
    assert [batch.shape[3] for batch in task.calibration_batches(3, 2)] == [128, 64]
    (batch,) = task.train_batches(epoch=0, batch_size=3, seed=0)
    assert sorted(int((image[0, 0] != 0).sum()) for image in batch.images) == [64, 100, 128]
    assert task.input_shape[2] == 64


@pytest.mark.parametrize("widths", [(32,), (64, 32), (32, 32, 64), (0, 64)])
def test_widths_that_make_no_sense(make, widths):
    expected = r"widths: got \[.*\]. Must be rising, and the last the input's width, 64, or more"
    with pytest.raises(DataError, match=expected):
        make(widths=widths)


# --- texts --------------------------------------------------------------------------------------------------------


def test_unknown_characters_are_left_out_in_training_and_wrong_in_validation(make, tmp_path):
    path = write_list(tmp_path / "u", ["ab", "aéb", "ba", "!a"])
    task = make(train=[path], val=[path])
    (batch,) = task.train_batches(epoch=0, batch_size=4, seed=0)
    texts = np.split(batch.targets.classes.numpy(), batch.targets.lengths.cumsum(0)[:-1].numpy())
    assert sorted(map(tuple, texts)) == [(1,), (1, 2), (1, 2), (2, 1)]
    assert task.evaluate(reader(["ab", "ab", "ba", "a"])).metric == 0.5
    assert told(task) == (
        f"{path}: 2 of 4 texts hold '!é', not in the charset, left out of the text: 'aéb', '!a'",
        f"{path}: 2 of 4 texts hold '!é', not in the charset, counted as read wrong: 'aéb', '!a'",
    )


def test_texts_of_unknown_characters_only_are_skipped_in_training(make, tmp_path):
    path = write_list(tmp_path / "u", ["ab", "é", "ba"])
    task = make(train=[path])
    assert task.train_steps(1) == 2
    assert f"{path}: 1 of 3 images skipped, without text: 1.png" in task.warnings()


def test_a_charset_that_most_training_texts_do_not_fit(make, tmp_path):
    path = write_list(tmp_path / "u", ["ab", "EXIT", "STOP"])
    with pytest.raises(DataError, match=r"2 of 3 texts hold characters that the charset lacks, the first is 'EXIT' in"):
        make(train=[path])
    assert make(train=[], val=[path]).evaluate(reader(["ab", "", ""])).metric == pytest.approx(1 / 3)


def test_lmdb_folders_and_their_empty_texts(make, tmp_path):
    folder = tmp_path / "db"
    folder.mkdir()
    with lmdb.open(str(folder), map_size=1 << 20) as database, database.begin(write=True) as writer:
        writer.put(b"num-samples", b"3")
        for number, text in enumerate(["ab", "", "ba"]):
            writer.put(b"image-%09d" % (number + 1), cv2.imencode(".png", crop(number, 30))[1].tobytes())
            writer.put(b"label-%09d" % (number + 1), text.encode())
    task = make(train=[folder], val=[folder])
    assert (task.train_steps(1), task.evaluate(reader(["ab", "", "ba"])).count) == (2, 2)
    assert told(task) == (f"{folder}: 1 of 3 images skipped, without text: image-000000002",) * 2


def test_empty_texts_of_a_label_list_are_skipped_and_named_as_well(make, tmp_path):
    path = write_list(tmp_path / "e", ["ab", "", "ba", " "])
    task = make(train=[path], val=[path])
    assert (task.train_steps(1), task.evaluate(reader(["ab", "", "ba", ""])).count) == (2, 2)
    assert told(task) == (f"{path}: 2 of 4 images skipped, without text: 1.png, 3.png",) * 2
    assert task.evaluate(reader(["ab", "", "ba", ""])).skipped == ("2 of 4 images skipped",)
    with pytest.raises(DataError, match=r"2 of 4 images are without text: 1.png, .*.png. At most 1% may be"):
        make(train=[], val=[path], rules=ListRules())


def test_crops_one_pixel_wide(make, tmp_path):
    path = write_list(tmp_path / "n", ["a", "b", "ab"], [1, 20, 30])
    task = make(train=[path], val=[path])
    assert (task.train_steps(1), task.evaluate(reader(["a", "b", "ab"])).count) == (2, 3)
    assert told(task) == (
        f"{path}: 1 of 3 images skipped, one pixel wide: 0.png",
        f"{path}: 1 of 3 images are one pixel wide: 0.png",
    )


def test_no_validation_data(charset):
    with pytest.raises(DataError, match="val: no images to validate on"):
        RecognitionTask([], [], charset=charset)


def test_training_without_training_data(make):
    task = make(train=[])
    with pytest.raises(DataError, match="train: no images to train on"):
        task.train_steps(4)
    with pytest.raises(DataError, match="train: no images to train on"):
        next(task.calibration_batches(1, 1))


# --- batches ------------------------------------------------------------------------------------------------------


def images_of(task, **settings):
    """Index -> image of an epoch."""
    batches = task.train_batches(**{"epoch": 0, "batch_size": 4, "seed": 0, **settings})
    return {index: image for batch in batches for index, image in zip(batch.targets.indices, batch.images, strict=True)}


@pytest.mark.parametrize("widths", [(), (24, 64)])
def test_same_epoch_and_seed_give_the_same_images_and_others_do_not(make, tmp_path, widths):
    rng = np.random.default_rng(0)
    path = write_list(tmp_path / "noise", TEXTS)
    for number in range(10):
        cv2.imwrite(str(path.parent / f"{number}.png"), rng.integers(0, 256, (24, 30 + 3 * number, 3), np.uint8))
    task = make(train=[path], widths=widths)
    first, again = images_of(task), images_of(task)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[index], again[index]) for index in first)
    others = [images_of(task, epoch=1), images_of(task, seed=1)]
    assert all(
        any(index not in other or not torch.equal(first[index], other[index]) for index in first) for other in others
    )


def test_images_do_not_depend_on_the_batch_size(make):
    task = make()
    few, many = images_of(task, batch_size=2), images_of(task, batch_size=10)
    assert few.keys() == many.keys()
    assert all(torch.equal(few[index], many[index]) for index in few)


def test_each_image_comes_with_its_text(make):
    task = make(augment=False)
    for batch in task.train_batches(epoch=0, batch_size=3, seed=0):
        ends = itertools.accumulate(batch.targets.lengths.tolist())
        texts = [batch.targets.classes[end - n : end] for end, n in zip(ends, batch.targets.lengths, strict=True)]
        assert [task.charset.decode([step for c in text.tolist() for step in (c, 0)]) for text in texts] == [
            TEXTS[number] for number in numbers_of(batch.images.numpy())
        ]


def test_batches_of_several_widths_have_one_each_and_use_every_image_they_can(make):
    task = make(widths=(24, 64))
    batches = list(task.train_batches(epoch=0, batch_size=2, seed=0))
    assert len(batches) == task.train_steps(2) == 5
    assert {batch.images.shape[3] for batch in batches} == {24, 64}
    assert sorted(index for batch in batches for index in batch.targets.indices) == list(range(10))


def test_calibration_images_are_always_the_same_and_at_most_as_many_as_asked(make):
    task = make(widths=(24, 64))
    batches = list(task.calibration_batches(7, 3))
    assert sum(map(len, batches)) == 7
    assert batches[0].shape[3] == 64
    again = list(task.calibration_batches(7, 3))
    assert all(np.array_equal(one, two) for one, two in zip(batches, again, strict=True))


# --- losses -------------------------------------------------------------------------------------------------------


def ctc_by_hand(probabilities: np.ndarray, classes: list[int]) -> float:
    """-ln of the summed probability of every path that reads as these classes."""
    total = 0.0
    for path in itertools.product(range(probabilities.shape[1]), repeat=len(probabilities)):
        collapsed = [now for now, _ in itertools.groupby(path) if now != 0]
        if collapsed == classes:
            total += math.prod(probabilities[step, now] for step, now in enumerate(path))
    return -math.log(total)


def batch_of(*texts: list[int]) -> Batch:
    targets = Targets(
        torch.tensor([number for text in texts for number in text]),
        torch.tensor([len(text) for text in texts]),
        tuple(range(len(texts))),
    )
    return Batch(torch.zeros(len(texts), *SHAPE), targets)


def test_loss_is_the_mean_over_texts_of_the_sum_over_all_paths(make):
    outputs = torch.rand(2, 5, 4, dtype=torch.float64).softmax(dim=2)
    texts = [[1, 2], [2, 2, 1]]
    expected = np.mean([ctc_by_hand(row.numpy(), text) for row, text in zip(outputs, texts, strict=True)])
    assert make().loss(outputs, batch_of(*texts)).item() == pytest.approx(expected, rel=1e-6)


def test_a_saturated_softmax_has_finite_loss_and_gradient(make):
    logits = torch.full((1, 4, 4), -200.0)
    logits[:, :, 0] = 200.0
    logits.requires_grad_()
    loss = make().loss(logits.softmax(dim=2), batch_of([1]))
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(4 * 1e-30), abs=0.01)
    assert logits.grad.isfinite().all()


def test_a_text_longer_than_the_steps_adds_zero_and_is_named(make):
    """TEXTS[1] is "ba"; "aab" (index 3) needs 4 steps with the blank between the a's."""
    task = make()
    targets = Targets(torch.tensor([2, 1, 1, 1, 2]), torch.tensor([2, 3]), (1, 3))
    outputs = torch.rand(2, 3, 4).softmax(dim=2).requires_grad_()
    loss = task.loss(outputs, Batch(torch.zeros(2, *SHAPE), targets))
    loss.backward()
    assert loss.item() == pytest.approx(ctc_by_hand(outputs[0].detach().numpy(), [2, 1]) / 2, rel=1e-5)
    assert outputs.grad[0].abs().sum() > 0
    assert outputs.grad[1].abs().sum() == 0
    assert told(task) == (
        "train: 1 of 10 texts are longer than the model's time steps (3), nothing learned from them: 'aab'",
    )


@pytest.mark.parametrize("function", [torch.log_softmax, lambda outputs, dim: outputs * 3])
def test_outputs_that_are_not_probabilities_are_refused(make, function):
    with pytest.raises(ModelError, match=r"output is not probabilities \(first row \[.*with its softmax"):
        make().loss(function(torch.rand(1, 8, 4), dim=2), batch_of([1]))


def test_distillation_loss_by_hand(make):
    """KL of (.5, .5) against (.8, .2) is 0.22314 at one step, 0 at the other: that is the image's sum."""
    teacher = torch.tensor([[[0.5, 0.5], [0.1, 0.9]]])
    student = torch.tensor([[[0.8, 0.2], [0.1, 0.9]]])
    assert make().distillation_loss(student, teacher).item() == pytest.approx(0.223144, abs=1e-5)


# --- the model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(None, None, 4), (1, 80, 4), (None, None, None)])
def test_models_that_fit(make, shape):
    make().check_model(shape)


@pytest.mark.parametrize("shape", [(None, 2), (None, 1, 640, 640)])
def test_models_of_other_tasks(make, shape):
    with pytest.raises(DataError, match=r"output shape \[.*\] does not fit recognition. Expected \[N, steps, 4\]"):
        make().check_model(shape)


def test_a_charset_that_does_not_fit_the_output(make):
    with pytest.raises(DataError, match=r"dict.txt: 2 characters, a space and the blank make 4 classes, .* has 97"):
        make().check_model((None, None, 97))
    with pytest.raises(DataError, match=r"make 4 classes, but the model's output has 3"):
        make().evaluate(lambda images: np.zeros((len(images), 5, 3)))


def test_steps_before_images_are_refused(make):
    with pytest.raises(
        ModelError, match=r"shape \[7, 10, 4\] for 10 images. Expected 10 as the first .*task.layout: tnk"
    ):
        make().evaluate(lambda images: np.zeros((7, len(images), 4)))


# --- fingerprint --------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_content_and_settings_not_of_places(make, tmp_path):
    here, there = (write_list(tmp_path / name, TEXTS) for name in ("here", "there"))
    other = write_list(tmp_path / "other", ["b", *TEXTS[1:]])

    def of(train, val, **settings):
        return make(train=[train], val=[val], **settings).fingerprint()

    assert of(here, here) == of(there, there) == of(here, here, eval_batch_size=3)
    different = [
        of(here, here),
        of(here, other),
        of(other, here),
        of(here, here, widths=(32, 64)),
        of(here, here, use_space=False),
        of(here, here, augment=False),
        of(here, here, input_shape=(3, 32, 64)),
    ]
    assert len(set(different)) == len(different)


# --- single images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(), (24, 64)])
def test_each_crop_is_told_with_its_name_text_and_reading(make, widths):
    """In the order of the list, whatever the order they are read in."""
    read = ["ab", "", "b", "aab", "b", "abab", "ba b", "b", "bb", "abba"]
    examination = make(widths=widths, eval_batch_size=3).examine(reader(read))
    figures = {name: ratio_of_sums(tallies) for name, tallies in examination.tallies.items()}
    assert figures == {"exact": examination.score.metric, "alnum": examination.score.details["alnum"]}
    assert [row[0] for row in examination.tallies["exact"]] == [case.error == 0 for case in examination.cases]
    cases = examination.cases
    assert [case.name for case in cases] == [f"{number}.png" for number in range(10)]
    assert [case.label for case in cases] == TEXTS
    assert [case.found for case in cases] == read
    assert [case.error for case in cases] == pytest.approx([0, 1, 2 / 3, 0, 0, 0, 0, 1, 0, 0])
    assert examination.score == make(widths=widths).evaluate(reader(read))
    assert examination.score.metric == np.mean([case.error == 0 for case in cases])


def test_an_unusable_output_reads_nothing(make):
    case = make().examine(lambda images: np.full((len(images), 8, 4), np.nan)).cases[0]
    assert (case.found, case.error) == (None, 1.0)


def test_the_picture_of_a_case_is_its_crop_without_padding(make):
    task = make()
    pictures = [task.picture(case) for case in task.examine(reader(TEXTS), 4).cases]
    numbers = [int(picture[0, 0, 0]) - 10 for picture in pictures]
    assert numbers == [case.index for case in task.examine(reader(TEXTS), 4).cases]
    assert [picture.shape for picture in pictures] == [(16, 20 + number, 3) for number in numbers]


# --- images without labels ----------------------------------------------------------------------------------------

OTHERS = ["b", "bab", "", "aa"]
"""What the original reads in crops 10 to 13."""


@pytest.fixture
def others(tmp_path):
    """Crops without labels, numbered from 10, in a folder of folders."""
    folder = tmp_path / "others" / "more"
    folder.mkdir(parents=True)
    for number in range(10, 14):
        cv2.imwrite(str(folder / f"{number}.png"), crop(number, 10 + 2 * number))
    return folder.parent


def classes_of(batches):
    """Number of a crop -> its classes, in order of training."""
    found = []
    for batch in batches:
        texts = np.split(batch.targets.classes.numpy(), batch.targets.lengths.cumsum(0)[:-1].numpy())
        found += zip(numbers_of(batch.images.numpy()), (tuple(text.tolist()) for text in texts), strict=True)
    return found


@pytest.mark.parametrize("widths", [(), (32, 64)])
def test_images_without_labels_are_learned_as_the_original_reads_them(make, others, widths):
    told = []
    task = make(unlabelled=[others], widths=widths, augment=False)
    taught = task.label_unlabelled(reader([*TEXTS, *OTHERS]), "it", lambda *call: told.append(call[:2]))
    learned = dict(classes_of(taught.train_batches(epoch=0, batch_size=1, seed=0)))
    encode = taught.charset.encode
    read = {10: "b", 11: "bab", 13: "aa"}  # 12 is skipped: nothing is read in it
    assert learned == {number: tuple(encode(text)[0]) for number, text in [*enumerate(TEXTS), *read.items()]}
    assert told[-1] == (4, 4)
    assert taught.warnings()[1:] == (
        f"{others}: 1 of 4 images skipped, the original model reads nothing in them: 12.png",
    )


def test_spliced_crops_are_learned_from_but_not_calibrated_on(make, others, tmp_path):
    spliced = tmp_path / "spliced"
    (spliced / "images").mkdir(parents=True)
    (others / "more" / "13.png").rename(spliced / "images" / "13.png")
    (spliced / "labels.txt").write_text("images/13.png\t\n")
    read = reader([*TEXTS, *OTHERS])
    seen = {}
    for marked in (False, True):
        if marked:
            (spliced / SOURCES).touch()
        task = make(unlabelled=[spliced / "labels.txt", others], augment=False).label_unlabelled(read, "it")
        learned = {number for number, _ in classes_of(task.train_batches(epoch=0, batch_size=1, seed=0))}
        assert learned == {*range(10), 10, 11, 13}
        used = {number for batch in task.calibration_batches(100, 1) for number in numbers_of(batch)}
        seen[marked] = (used - learned, learned - used, task.fingerprint())
    assert (seen[False][:2], seen[True][:2]) == ((set(), set()), (set(), {13}))
    assert seen[False][2] != seen[True][2]
    (others / "more" / "10.png").unlink()
    (others / "more" / "11.png").unlink()
    (others / "more" / "12.png").unlink()
    beside = make(unlabelled=[spliced / "labels.txt"]).label_unlabelled(read, "it")
    assert {number for batch in beside.calibration_batches(100, 1) for number in numbers_of(batch)} == set(range(10))
    alone = make(train=[], unlabelled=[spliced / "labels.txt"]).label_unlabelled(read, "it")
    assert len(list(alone.calibration_batches(100, 1))) == 1, "better than none"


def test_an_epoch_holds_as_many_images_without_labels_as_with(make, others):
    plain, task = make(augment=False), make(unlabelled=[others], augment=False)
    taught = task.label_unlabelled(reader([*TEXTS, *OTHERS]), "it")
    assert taught.train_steps(4) == 2 * 10 // 4
    for epoch in range(3):
        numbers = [number for number, _ in classes_of(taught.train_batches(epoch=epoch, batch_size=1, seed=0))]
        assert sorted(number for number in numbers if number < 10) == list(range(10))
        assert sum(numbers.count(number) for number in (10, 11, 13)) == 10
    assert len(list(plain.train_batches(epoch=0, batch_size=1, seed=0))) == 10


def test_a_crop_that_comes_twice_in_an_epoch_is_augmented_twice(make, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 40, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "one.png"), pixels)
    (tmp_path / "list.txt").write_text("one.png\tunread\n")
    task = make(unlabelled=[tmp_path / "list.txt"])
    taught = task.label_unlabelled(lambda images: np.eye(4, dtype=np.float32)[np.ones((len(images), 16), int)], "it")
    batches = list(taught.train_batches(epoch=0, batch_size=20, seed=0))
    own = [image for batch in batches for i, image in zip(batch.targets.indices, batch.images, strict=True) if i == 10]
    assert len(own) == 10
    assert len({image.numpy().tobytes() for image in own}) > 5  # a few are left as they are


def test_batches_with_images_without_labels_repeat(make, others):
    runs = [make(unlabelled=[others]).label_unlabelled(reader([*TEXTS, *OTHERS]), "it") for _ in range(2)]
    one, two = (list(task.train_batches(epoch=2, batch_size=5, seed=1)) for task in runs)
    assert all(torch.equal(a.images, b.images) for a, b in zip(one, two, strict=True))
    assert all(a.targets.indices == b.targets.indices for a, b in zip(one, two, strict=True))


def test_the_fingerprint_knows_the_images_without_labels_and_who_labelled_them(make, others):
    def labelled_by(original):
        return make(unlabelled=[others]).label_unlabelled(reader([*TEXTS, *OTHERS]), original).fingerprint()

    first = labelled_by("it")
    assert make(unlabelled=[others]).fingerprint() == make().fingerprint(), "No score depends on them."
    assert len({make().fingerprint(), first, labelled_by("another")}) == 3
    assert labelled_by("it") == first
    cv2.imwrite(str(others / "more" / "12.png"), crop(13, 34))
    assert labelled_by("it") != first


def test_a_task_without_such_images_stays_as_it_is(make):
    task = make()
    assert task.label_unlabelled(reader(TEXTS), "it") is task


def test_images_without_labels_alone_are_enough_to_train(make, others):
    task = make(train=[], unlabelled=[others]).label_unlabelled(reader([*TEXTS, *OTHERS]), "it")
    assert sorted(number for number, _ in classes_of(task.train_batches(epoch=0, batch_size=1, seed=0))) != []
    assert task.train_steps(1) == 3


def test_images_that_nobody_labelled_are_not_left_out_in_silence(make, others):
    with pytest.raises(DataError, match="unlabelled: the images have no labels yet"):
        make(unlabelled=[others]).train_steps(4)


def test_an_original_that_reads_nothing(make, others):
    with pytest.raises(DataError, match="unlabelled: the original model reads nothing in any of 4 images"):
        make(unlabelled=[others]).label_unlabelled(lambda images: np.full((len(images), 8, 4), np.nan), "it")


def test_calibration_uses_images_without_labels_too(make, others):
    task = make(unlabelled=[others]).label_unlabelled(reader([*TEXTS, *OTHERS]), "it")
    numbers = [number for batch in task.calibration_batches(100, 4) for number in numbers_of(batch)]
    assert (len(numbers), {10, 11, 13} <= set(numbers)) == (20, True)
