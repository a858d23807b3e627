"""The direction task: what it makes of label lists, its batches, losses and score, and what it refuses."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from compress.data.labels import ListRules
from compress.data.transforms import preprocess_crop
from compress.errors import DataError, ModelError
from compress.measure.intervals import ratio_of_sums
from compress.tasks.base import Batch
from compress.tasks.classification import DirectionTask

SHAPE = (3, 16, 48)
LOOSE = ListRules(max_skipped=1.0, allow_overlap=True)
"""Most of these tests score on what they train on, and some skip much of it."""


def write_list(folder: Path, texts: list[str], *, first_pixel: int = 0, name: str = "labels.txt") -> Path:
    """Crops that are bright at the top and dark at the bottom, so that direction can be seen; number in one pixel."""
    folder.mkdir(exist_ok=True, parents=True)
    lines = []
    for index, text in enumerate(texts):
        image = np.zeros((20, 40 + index, 3), np.uint8)
        image[:10] = 200
        image[0, 0] = first_pixel + index
        cv2.imwrite(str(folder / f"{index}.png"), image)
        lines.append(f"{index}.png\t{text}\n")
    (folder / name).write_text("".join(lines))
    return folder / name


@pytest.fixture
def crops(tmp_path):
    return write_list(tmp_path / "crops", [f"word{i}" for i in range(10)])


@pytest.fixture
def task(crops):
    return DirectionTask([crops], [crops], input_shape=SHAPE, rules=LOOSE)


def top_is_bright(images: np.ndarray) -> np.ndarray:
    """A perfect predict function for these crops."""
    upright = images[:, 0, :8].mean(axis=(1, 2)) > images[:, 0, 8:].mean(axis=(1, 2))
    return np.stack([upright, ~upright], axis=1).astype(np.float32)


# --- the two kinds of list ----------------------------------------------------------------------------------------


def test_word_crops_are_used_upright_and_turned(task):
    score = task.evaluate(top_is_bright)
    assert (score.metric, score.name, score.count) == (1.0, "accuracy", 20)
    assert score.details == {"accuracy_0": 1.0, "count_0": 10, "accuracy_180": 1.0, "count_180": 10}


def test_labels_are_used_as_they_are(tmp_path):
    path = write_list(tmp_path, ["0", "180", "0"])
    score = DirectionTask([], [path], input_shape=SHAPE).evaluate(top_is_bright)
    assert score.count == 3
    assert score.details == {"accuracy_0": 1.0, "count_0": 2, "accuracy_180": 0.0, "count_180": 1}


def test_each_list_is_told_apart_by_itself(tmp_path):
    words = write_list(tmp_path / "words", ["EXIT", "STOP", "180"])
    labels = write_list(tmp_path / "labels", ["0", "180", "0"])
    assert DirectionTask([], [words, labels], input_shape=SHAPE).evaluate(top_is_bright).count == 2 * 3 + 3


def test_directions_true_makes_directions_of_any_text(tmp_path):
    path = write_list(tmp_path, ["0", "180", "0"])
    assert DirectionTask([], [path], input_shape=SHAPE, directions=True).evaluate(top_is_bright).count == 6


@pytest.mark.parametrize("directions", [None, False])
def test_a_typing_error_among_labels_is_an_error_with_its_line(tmp_path, directions):
    path = write_list(tmp_path, ["0", "180", "O", "180"])
    with pytest.raises(DataError, match=r"labels.txt: line 3: unknown label 'O'. Allowed: 0, 180. .*directions: true"):
        DirectionTask([], [path], input_shape=SHAPE, directions=directions)


def test_an_empty_label_is_an_error_with_its_line(tmp_path):
    path = write_list(tmp_path, ["0", "180", "", "180"])
    with pytest.raises(DataError, match=r"labels.txt: line 3: unknown label ''. Allowed: 0, 180."):
        DirectionTask([], [path], input_shape=SHAPE)


def test_words_where_labels_are_demanded_are_an_error(crops):
    with pytest.raises(DataError, match=r"line 1: unknown label 'word0'"):
        DirectionTask([], [crops], input_shape=SHAPE, directions=False)


def test_other_labels_and_more_of_them(tmp_path):
    path = write_list(tmp_path, ["90", "0", "270", "180"])
    task = DirectionTask([path], [path], rules=LOOSE, input_shape=SHAPE, labels=("0", "90", "180", "270"))
    score = task.evaluate(lambda images: np.tile(np.eye(4)[1], (len(images), 1)))
    assert score.metric == 0.25
    assert score.details["accuracy_90"] == 1.0


def test_directions_need_two_labels(crops):
    with pytest.raises(DataError, match=r"labels: got \['0', '90', '180'\]. Directions .* need two labels"):
        DirectionTask([], [crops], labels=("0", "90", "180"), directions=True)


# --- bad input ----------------------------------------------------------------------------------------------------


def test_no_validation_data():
    with pytest.raises(DataError, match="val: no images to validate on"):
        DirectionTask([], [])


def test_an_empty_validation_list(tmp_path):
    (tmp_path / "labels.txt").touch()
    with pytest.raises(DataError, match="no lines"):
        DirectionTask([], [tmp_path / "labels.txt"])


def test_a_missing_list():
    with pytest.raises(DataError, match="no such file"):
        DirectionTask([], [Path("nowhere/labels.txt")])


def test_training_without_training_data(crops):
    task = DirectionTask([], [crops], input_shape=SHAPE)
    with pytest.raises(DataError, match="train: no images to train on"):
        task.train_steps(4)
    with pytest.raises(DataError, match="train: no images to train on"):
        next(task.calibration_batches(1, 1))


def test_skipped_images_are_warnings(crops):
    (crops.parent / "0.png").unlink()
    (crops.parent / "1.png").write_bytes(b"garbage")
    task = DirectionTask([], [crops], input_shape=SHAPE, rules=LOOSE)
    assert [line.split(": ", 1)[1] for line in task.warnings()] == [
        "1 of 10 images skipped, missing: 0.png",
        "1 of 10 images skipped, unreadable: 1.png",
    ]
    score = task.evaluate(lambda images: np.full((len(images), 2), 0.5, np.float32))
    assert (score.count, score.skipped) == (16, ("2 of 10 images skipped",))
    with pytest.raises(DataError, match="1 of 10 images is missing"):
        DirectionTask([], [crops], input_shape=SHAPE)


def test_lists_that_share_images_are_refused_unless_allowed(crops, tmp_path):
    """Whatever the files are called: the first crop of another list is the same."""
    other = write_list(tmp_path / "other", ["EXIT"])
    (other.parent / "0.png").write_bytes((crops.parent / "7.png").read_bytes())
    message = r"val: 1 of 1 images is in train, too, the first is .*other/0.png \(there .*crops/7.png\)"
    with pytest.raises(DataError, match=message):
        DirectionTask([crops], [other], input_shape=SHAPE)
    assert "val: 1 of 1 images is in train, too" in DirectionTask([crops], [other], rules=LOOSE).warnings()[0]


def test_a_class_without_validation_images_is_a_warning(tmp_path):
    task = DirectionTask([], [write_list(tmp_path, ["0", "0"])], input_shape=SHAPE)
    assert task.warnings() == ("val: no image is labelled '180', so its accuracy is not measured",)
    assert "accuracy_180" not in task.evaluate(top_is_bright).details


# --- batches ------------------------------------------------------------------------------------------------------


def epoch(task, batch_size, epoch=0, seed=0):
    batches = list(task.train_batches(epoch=epoch, batch_size=batch_size, seed=seed))
    return torch.cat([b.images for b in batches]), torch.cat([b.targets for b in batches])


def test_same_epoch_and_seed_give_the_same_batches_and_others_do_not(task):
    images, targets = epoch(task, 4)
    again, again_targets = epoch(task, 4)
    assert torch.equal(images, again)
    assert torch.equal(targets, again_targets)
    assert not torch.equal(images, epoch(task, 4, epoch=1)[0])
    assert not torch.equal(images, epoch(task, 4, seed=1)[0])


def test_images_do_not_depend_on_the_batch_size(task):
    assert torch.equal(epoch(task, 4)[0], epoch(task, 10)[0])


def test_an_epoch_is_full_batches_only(task):
    batches = list(task.train_batches(epoch=0, batch_size=8, seed=0))
    assert [len(batch.images) for batch in batches] == [8, 8]
    assert task.train_steps(8) == 2
    assert batches[0].images.shape == (8, *SHAPE)
    assert batches[0].images.dtype == torch.float32


def test_fewer_images_than_a_batch_are_one_batch(task):
    assert [len(batch.images) for batch in task.train_batches(epoch=0, batch_size=64, seed=0)] == [20]


def test_an_epoch_holds_every_crop_in_both_directions_with_its_label(crops):
    task = DirectionTask([crops], [crops], rules=LOOSE, input_shape=SHAPE, augment=False)
    images, targets = epoch(task, 20)
    assert targets.bincount().tolist() == [10, 10]
    assert (top_is_bright(images.numpy()).argmax(axis=1) == targets.numpy()).all()


def test_unaugmented_images_are_preprocessed_like_at_inference(crops):
    task = DirectionTask([crops], [crops], rules=LOOSE, input_shape=SHAPE, augment=False)
    upright = {preprocess_crop(cv2.imread(str(crops.parent / f"{i}.png")), SHAPE).tobytes() for i in range(10)}
    images, targets = epoch(task, 20)
    assert {image.numpy().tobytes() for image in images[targets == 0]} == upright


def test_augmentation_changes_images_and_not_labels(task, crops):
    plain = DirectionTask([crops], [crops], rules=LOOSE, input_shape=SHAPE, augment=False)
    assert torch.equal(epoch(task, 20)[1], epoch(plain, 20)[1])
    assert not torch.equal(epoch(task, 20)[0], epoch(plain, 20)[0])


def test_calibration_images_are_always_the_same_and_at_most_as_many_as_asked(task):
    batches = list(task.calibration_batches(7, 3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    again = list(task.calibration_batches(7, 7))
    np.testing.assert_array_equal(np.concatenate(batches), again[0])
    assert sum(map(len, task.calibration_batches(100, 8))) == 20


def test_calibration_sees_both_directions(task):
    (images,) = task.calibration_batches(20, 20)
    assert top_is_bright(images).mean(axis=0).tolist() == [0.5, 0.5]


# --- losses and score ---------------------------------------------------------------------------------------------


def test_loss_by_hand(task):
    """-(ln 0.8 + ln 0.5) / 2 = 0.45815."""
    outputs = torch.tensor([[0.8, 0.2], [0.5, 0.5]])
    batch = Batch(torch.zeros(2, *SHAPE), torch.tensor([0, 1]))
    assert task.loss(outputs, batch).item() == pytest.approx(0.458145, abs=1e-5)


def test_loss_and_gradient_of_a_saturated_softmax_are_finite(task):
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = task.loss(logits.softmax(dim=1), Batch(torch.zeros(1, *SHAPE), torch.tensor([1])))
    loss.backward()
    assert loss.item() == pytest.approx(30 * math.log(10), abs=0.01)
    assert logits.grad.isfinite().all()


def test_gradient_through_softmax_is_probability_minus_target(task):
    logits = torch.tensor([[0.3, -0.4]], requires_grad=True)
    task.loss(logits.softmax(dim=1), Batch(torch.zeros(1, *SHAPE), torch.tensor([0]))).backward()
    expected = logits.detach().softmax(dim=1) - torch.tensor([[1.0, 0.0]])
    torch.testing.assert_close(logits.grad, expected)


@pytest.mark.parametrize("outputs", [[[2.0, -1.0]], [[3.0, 1.0]]])
def test_outputs_that_are_not_probabilities_are_refused(task, outputs):
    with pytest.raises(ModelError, match=r"output is not probabilities .*with its softmax"):
        task.loss(torch.tensor(outputs), Batch(torch.zeros(1, *SHAPE), torch.tensor([0])))


def test_distillation_loss_by_hand(task):
    """KL of (0.5, 0.5) against (0.8, 0.2): 0.5 ln(0.5/0.8) + 0.5 ln(0.5/0.2) = 0.22314; of equals: 0."""
    teacher, student = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.8, 0.2]])
    assert task.distillation_loss(student, teacher).item() == pytest.approx(0.223144, abs=1e-5)
    assert task.distillation_loss(teacher, teacher).item() == 0.0


def test_distillation_loss_takes_certain_teachers(task):
    teacher, student = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])
    assert task.distillation_loss(student, teacher).item() == pytest.approx(np.log(2), abs=1e-5)


def test_the_score_does_not_depend_on_the_batch_size(crops):
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((2, int(np.prod(SHAPE))))

    def predict(images):
        return images.reshape(len(images), -1) @ weights.T

    scores = [DirectionTask([], [crops], input_shape=SHAPE, eval_batch_size=n).evaluate(predict) for n in (1, 7, 64)]
    assert scores[0] == scores[1] == scores[2]


def test_the_last_evaluation_batch_is_not_padded(crops):
    sizes = []

    def predict(images):
        sizes.append(len(images))
        return top_is_bright(images)

    DirectionTask([], [crops], input_shape=SHAPE, eval_batch_size=8).evaluate(predict)
    assert sizes == [8, 8, 4]


def test_nan_is_wrong(task):
    assert task.evaluate(lambda images: np.full((len(images), 2), np.nan)).metric == 0.0


def test_a_limited_score_uses_that_many_images_and_always_the_same(task):
    seen = []

    def predict(images):
        seen.append(images)
        return top_is_bright(images)

    assert task.evaluate(predict, limit=6).count == 6
    task.evaluate(predict, limit=6)
    np.testing.assert_array_equal(seen[0], seen[1])
    assert task.evaluate(predict, limit=1000).count == 20


@pytest.mark.parametrize("shape", [(None, 2), (1, 2), (None, None)])
def test_models_that_fit(task, shape):
    task.check_model(shape)


@pytest.mark.parametrize("shape", [(None, 3), (None, 80, 97), (None, 1, 640, 640), (2,)])
def test_models_that_do_not_fit(task, shape):
    with pytest.raises(DataError, match=r"output shape \[.*\] does not fit classification. Expected \[N, 2\]"):
        task.check_model(shape)


# --- fingerprint --------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_content_and_settings_not_of_places(tmp_path):
    texts = ["EXIT", "STOP"]
    here, there = write_list(tmp_path / "here", texts), write_list(tmp_path / "there", texts)
    other_pixels = write_list(tmp_path / "pixels", texts, first_pixel=9)
    other_texts = write_list(tmp_path / "texts", ["EXIT", "TOP"])

    def of(train, val, **settings):
        return DirectionTask([train], [val], input_shape=SHAPE, rules=LOOSE, **settings).fingerprint()

    assert of(here, here) == of(there, there)
    different = [
        of(here, here),
        of(here, other_pixels),
        of(other_pixels, here),
        of(here, other_texts),
        of(here, here, augment=False),
        DirectionTask([here], [here], rules=LOOSE).fingerprint(),
    ]
    assert len(set(different)) == len(different)


def test_evaluation_batch_size_is_no_part_of_the_fingerprint(crops):
    prints = {DirectionTask([], [crops], eval_batch_size=size).fingerprint() for size in (1, 64)}
    assert len(prints) == 1


# --- single images ------------------------------------------------------------------------------------------------


def test_each_crop_is_told_with_its_name_label_and_how_sure_the_model_was(tmp_path):
    task = DirectionTask([], [write_list(tmp_path, ["0", "180", "0"])], input_shape=SHAPE)
    outputs = np.array([[0.8, 0.2], [0.9, 0.1], [0.5, 0.5]], np.float32)
    cases = task.examine(lambda images: outputs).cases
    assert [(case.index, case.name, case.label, case.found) for case in cases] == [
        (0, "0.png", "0", "0 (0.80)"),
        (1, "1.png", "180", "0 (0.90)"),
        (2, "2.png", "0", "0 (0.50)"),
    ]
    assert [case.error for case in cases] == pytest.approx([0.0, 0.9, 0.0])


def test_a_wrong_answer_is_never_without_error(tmp_path):
    """Whatever the numbers: logits, or the label in second place of a tie. NaN is as wrong as can be."""
    task = DirectionTask([], [write_list(tmp_path, ["180"] * 4)], input_shape=SHAPE)
    outputs = np.array([[9.0, 5.0], [0.5, 0.5], [-1.0, -3.0], [np.nan, 1.0]], np.float32)
    examination = task.examine(lambda images: outputs)
    assert [case.error for case in examination.cases] == [0.5, 0.5, 1.0, 1.0]
    assert examination.cases[3].found is None
    assert examination.score.metric == 0.0


def test_evaluate_is_what_examine_scores(task):
    def half_right(images):
        answers = top_is_bright(images)
        answers[::2] = answers[::2, ::-1]
        return answers

    examination = task.examine(half_right)
    assert examination.score == task.evaluate(half_right)
    assert examination.score.metric == np.mean([case.error == 0 for case in examination.cases]) == 0.5
    assert ratio_of_sums(examination.tallies["accuracy"]) == 0.5
    assert len(task.examine(half_right, 7).cases) == task.evaluate(half_right, 7).count == 7


def test_a_crop_in_both_directions_is_one_image_of_the_tallies(tmp_path):
    """What is hard upright is hard turned: two judgements of one image are not two images for an interval."""
    words, labels = write_list(tmp_path / "words", ["EXIT", "STOP"]), write_list(tmp_path / "labels", ["0", "180", "0"])
    task = DirectionTask([], [words, labels], input_shape=SHAPE)
    tallies = task.examine(lambda images: np.tile(np.float32([0.9, 0.1]), (len(images), 1))).tallies["accuracy"]
    assert tallies.tolist() == [[1, 2], [1, 2], [1, 1], [0, 1], [1, 1]]


def test_turned_crops_in_files_of_their_own_are_one_image_where_a_model_labelled_them(tmp_path):
    """Only there: lists of the user's own are taken as they are."""
    labels = write_list(tmp_path / "labels", ["0", "0", "180", "180"])
    for index in (0, 1):
        image = cv2.imread(str(tmp_path / "labels" / f"{index}.png"))
        cv2.imwrite(str(tmp_path / "labels" / f"{index + 2}.png"), cv2.rotate(image, cv2.ROTATE_180))
    for agreement, expected in ((True, [[1, 2], [1, 2]]), (False, [[1, 1], [1, 1], [0, 1], [0, 1]])):
        task = DirectionTask([], [labels], input_shape=SHAPE, agreement=agreement)
        examination = task.examine(lambda images: np.tile(np.float32([0.9, 0.1]), (len(images), 1)))
        assert examination.tallies[task.metric_name].tolist() == expected


def test_the_picture_of_a_case_is_the_crop_as_it_is_fed(task):
    fed = []

    def predict(images):
        fed.extend(images)
        return top_is_bright(images)

    cases = task.examine(predict).cases
    assert [case.label for case in cases[:4]] == ["0", "180", "0", "180"]
    for case, image in zip(cases, fed, strict=True):
        assert np.array_equal(preprocess_crop(task.picture(case), SHAPE), image)


def test_an_output_of_another_size_is_named(task):
    with pytest.raises(DataError, match=r"output shape \[20, 3\] does not fit classification"):
        task.evaluate(lambda images: np.zeros((len(images), 3), np.float32))


# --- images without labels ----------------------------------------------------------------------------------------


def half_sure(images: np.ndarray) -> np.ndarray:
    """Right, but with probability 0.7 only."""
    return 0.3 + 0.4 * top_is_bright(images)


@pytest.fixture
def others(tmp_path):
    return write_list(tmp_path / "others" / "deep", ["anything"] * 6, first_pixel=100).parent.parent


def test_images_without_labels_are_learned_as_the_original_judges_them(crops, others):
    task = DirectionTask([crops], [crops], input_shape=SHAPE, augment=False, unlabelled=[others], rules=LOOSE)
    taught = task.label_unlabelled(half_sure, "it")
    assert taught.train_steps(1) == 2 * 20
    images, targets = epoch(taught, 40)
    sure = targets.max(dim=1).values
    assert sorted(sure.tolist()) == pytest.approx([0.7] * 20 + [1.0] * 20)
    assert (targets.argmax(dim=1).numpy() == top_is_bright(images.numpy()).argmax(axis=1)).all()
    assert (targets.argmax(dim=1)[sure < 1].sum(), len(set(targets[sure < 1]))) == (10, 20)


def test_loss_of_probabilities_is_cross_entropy(task):
    outputs, targets = torch.tensor([[0.25, 0.75], [0.5, 0.5]]), torch.tensor([[0.7, 0.3], [0.0, 1.0]])
    by_hand = -(0.7 * np.log(0.25) + 0.3 * np.log(0.75) + np.log(0.5)) / 2
    assert float(task.loss(outputs, Batch(torch.zeros(2, *SHAPE), targets))) == pytest.approx(by_hand)
    classes, rows = torch.tensor([1, 0]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    losses = [task.loss(outputs, Batch(torch.zeros(2, *SHAPE), given)) for given in (classes, rows)]
    assert torch.equal(*losses)


def test_labels_as_they_are_do_not_turn_images_without_labels(tmp_path, others):
    path = write_list(tmp_path / "labels", ["0", "180", "0"])
    task = DirectionTask([], [path], input_shape=SHAPE, augment=False, directions=False, unlabelled=[others])
    assert task.label_unlabelled(half_sure, "it").train_steps(1) == 6


def test_the_fingerprint_knows_the_images_without_labels(crops, others):
    def labelled_by(original):
        task = DirectionTask([crops], [crops], input_shape=SHAPE, unlabelled=[others], rules=LOOSE)
        assert task.fingerprint() == DirectionTask([crops], [crops], input_shape=SHAPE, rules=LOOSE).fingerprint()
        return task.label_unlabelled(half_sure, original).fingerprint()

    first = labelled_by("it")
    assert labelled_by("it") == first != labelled_by("another")
    cv2.imwrite(str(others / "deep" / "0.png"), np.zeros((20, 40, 3), np.uint8))
    assert labelled_by("it") != first


def test_images_that_the_original_cannot_judge_are_counted(crops, others):
    def predict(images):
        outputs = half_sure(images)
        outputs[0] = np.nan
        return outputs

    task = DirectionTask([crops], [crops], input_shape=SHAPE, unlabelled=[others], rules=LOOSE)
    taught = task.label_unlabelled(predict, "it")
    assert taught.warnings()[-1:] == (
        f"{others}: 1 of 6 images skipped, the original model's output is not finite: 0.png",
    )
    with pytest.raises(DataError, match="not finite for any of 6"):
        task.label_unlabelled(lambda images: np.full((len(images), 2), np.nan), "it")
    with pytest.raises(DataError, match="no labels yet"):
        task.train_steps(1)
