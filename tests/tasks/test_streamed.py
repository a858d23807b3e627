"""Recognition on streamed lists: the same images, texts and scores; the same batches whatever makes them."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.data import streaming as streaming_module
from compress.data.labels import ListRules
from compress.errors import CompressError, DataError
from compress.tasks.base import Batch
from compress.tasks.classification import DirectionTask
from compress.tasks.recognition import RecognitionTask
from tests.data.test_shards import write_shards
from tests.tasks.test_recognition import write_list

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than there are cores
TEXTS = [text for text in ("ab", "ba", "aab", "b", "abab", "a") for _ in range(8)]
SHAPE = (3, 8, 64)


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    (tmp_path / "dict.txt").write_text("a\nb\n")
    return write_list(tmp_path / "crops", TEXTS, [8 + 7 * (number % 16) for number in range(len(TEXTS))])


@pytest.fixture
def make(crops: Path) -> Callable[..., RecognitionTask]:
    def task(**settings: Any) -> RecognitionTask:
        rules = ListRules(allow_overlap=True, max_skipped=settings.pop("max_skipped", 0.01))
        charset = crops.parent.parent / "dict.txt"
        return RecognitionTask(
            [crops], [crops], charset=charset, input_shape=SHAPE, widths=[32, 64], rules=rules, **settings
        )

    return task


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_module, "STREAMED_FROM", 1)


def batches(task: RecognitionTask | DirectionTask, epoch: int = 1) -> list[Batch]:
    return list(task.train_batches(epoch=epoch, batch_size=6, seed=3))


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(torch.equal(a.images, b.images) for a, b in zip(one, other, strict=True))


def rows(found: list[Batch]) -> list[bytes]:
    """Images without their padding, in an order of their own."""
    return sorted(image[:, :, :8].numpy().tobytes() for batch in found for image in batch.images)


@pytest.mark.usefixtures("streaming")
def test_an_epoch_holds_the_same_images_and_texts(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    streamed = make(augment=False)
    monkeypatch.setattr(streaming_module, "STREAMED_FROM", 10**9)
    whole = make(augment=False)
    found = batches(streamed)
    assert len(found) == streamed.train_steps(6) == whole.train_steps(6) == 8
    assert rows(found) == rows(batches(whole))
    assert {batch.images.shape[-1] for batch in found} == {32, 64}
    texts = sorted(streamed._train.text(index) for batch in found for index in batch.targets.indices)
    assert texts == sorted(TEXTS)
    for one, other in zip(streamed.calibration_batches(10, 4), whole.calibration_batches(10, 4), strict=True):
        assert np.array_equal(one, other)
    outputs = torch.rand(6, 16, 4).softmax(-1)
    assert torch.isfinite(streamed.loss(outputs, found[0]))
    assert streamed.fingerprint() != whole.fingerprint()


@pytest.mark.usefixtures("streaming")
def test_the_same_batches_in_a_thread_and_in_processes(make: Any) -> None:
    one = batches(make())
    assert same(one, batches(make()))
    assert same(one, batches(make(workers=2)))
    assert same(one, batches(make(workers=1)))
    assert not same(one, batches(make(), epoch=2))


def test_workers_make_the_batches_of_lists_in_memory(make: Any, crops: Path) -> None:
    assert same(batches(make()), batches(make(workers=2)))
    rules = ListRules(allow_overlap=True)
    tasks = [DirectionTask([crops], [crops], input_shape=SHAPE, workers=workers, rules=rules) for workers in (0, 2)]
    assert same(batches(tasks[0]), batches(tasks[1]))


def test_an_error_in_a_worker_is_raised_here_as_it_is(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise DataError("broken")

    monkeypatch.setattr(RecognitionTask, "_train_batch", fails)
    with pytest.raises(DataError, match=r"^broken$"):
        batches(make(workers=1))


@pytest.mark.usefixtures("streaming")
def test_images_that_turn_out_to_be_damaged_are_left_out_and_counted(make: Any, crops: Path) -> None:
    (crops.parent / "5.png").write_bytes(b"no image")
    task = make(max_skipped=0.1)
    found = batches(task)
    assert 5 not in {index for batch in found for index in batch.targets.indices}
    assert task.warnings()[-1] == "train: 1 of 48 images, of those met so far, cannot be used: 5.png"
    strict = make(max_skipped=0.1)
    for number in range(10):
        (crops.parent / f"{number}.png").write_bytes(b"no image")
    strict._rules = ListRules(max_skipped=0.1)
    with pytest.raises(DataError, match=r"10 of 48 images are unreadable"):
        batches(strict)


@pytest.mark.usefixtures("streaming")
def test_images_whose_pixels_are_damaged_teach_nothing_and_are_counted(make: Any, crops: Path) -> None:
    """Their header is whole, so that they are met in a batch."""
    task = make(augment=False, max_skipped=0.1)
    data = (crops.parent / "5.png").read_bytes()
    (crops.parent / "5.png").write_bytes(data[:40] + bytes(len(data) - 40))
    for batch in batches(task):
        task.loss(torch.rand(6, 16, 4).softmax(-1), batch)
    assert task.warnings()[-1].endswith("cannot be used: 5.png")


@pytest.mark.usefixtures("streaming")
def test_a_charset_of_another_language(make: Any, crops: Path) -> None:
    (crops.parent.parent / "dict.txt").write_text("x\ny\n")
    with pytest.raises(DataError, match=r"48 of 48 texts hold characters that the charset lacks, the first is 'ab'"):
        make()


def directions(crops: Path, **settings: Any) -> DirectionTask:
    rules = ListRules(allow_overlap=True, max_skipped=settings.pop("max_skipped", 0.01))
    return DirectionTask([crops], [crops], input_shape=SHAPE, rules=rules, **settings)


@pytest.mark.usefixtures("streaming")
def test_directions_are_the_same_batches_streamed_and_in_memory(crops: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No widths are needed, so that even the order is the same."""
    streamed, workers = directions(crops), directions(crops, workers=2)
    monkeypatch.setattr(streaming_module, "STREAMED_FROM", 10**9)
    whole = directions(crops)
    assert same(batches(streamed), batches(whole))
    assert same(batches(workers), batches(whole))
    assert streamed.train_steps(6) == whole.train_steps(6) == 16
    for one, other in zip(streamed.calibration_batches(10, 4), whole.calibration_batches(10, 4), strict=True):
        assert np.array_equal(one, other)
    targets = [batch.targets.tolist() for batch in batches(streamed)]
    assert targets == [batch.targets.tolist() for batch in batches(whole)]


@pytest.mark.usefixtures("streaming")
def test_labelled_directions_and_wrong_labels(crops: Path) -> None:
    crops.write_text("".join(f"{number}.png\t{'180' if number % 2 else '0'}\n" for number in range(40)))
    task = directions(crops)
    assert task.train_steps(6) == 40 // 6
    crops.write_text(crops.read_text().replace("3.png\t180", "3.png\t18"))
    with pytest.raises(DataError, match="line 4: unknown label '18'"):
        directions(crops)


@pytest.mark.usefixtures("streaming")
def test_damaged_crops_are_replaced_by_the_next_and_counted(crops: Path) -> None:
    task, strict = directions(crops, max_skipped=0.1), directions(crops)
    (crops.parent / "5.png").write_bytes(b"no image")
    found = batches(task)
    assert len(found) == 16
    assert same(found, batches(directions(crops, max_skipped=0.1, workers=2)))
    for batch in found:
        task.loss(torch.rand(6, 2).softmax(-1), batch)
    assert task.warnings()[-1] == "train: 1 images, of those met so far, cannot be decoded: 5.png"
    outputs = torch.rand(6, 2).softmax(-1)
    made = batches(strict)
    with pytest.raises(DataError, match=r"1 of 48 images is unreadable: 5\.png"):
        [strict.loss(outputs, batch) for batch in made]


@pytest.mark.usefixtures("streaming")
def test_texts_that_cannot_be_learned_are_counted_and_named(make: Any, crops: Path) -> None:
    lines = crops.read_text().splitlines()
    lines[3], lines[7] = "3.png\t", "7.png\tax"
    crops.write_text("\n".join(lines))
    found = make(max_skipped=0.1).warnings()
    assert f"{crops}: 1 of 48 texts hold characters that are not in the charset, left out of the text: 'ax'" in found
    assert f"{crops}: 1 of 48 images skipped, without text: 3.png" in found
    with pytest.raises(DataError, match=r"1 of 48 images is without text: 3\.png"):
        make()


@pytest.mark.usefixtures("streaming")
def test_a_worker_that_is_killed_is_one_line(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It kills itself while this process waits for its batch."""

    def dies(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    task = make(workers=1)
    monkeypatch.setattr(task, "_train_batch", dies)
    with pytest.raises(CompressError, match="one of them was killed"):
        list(task.train_batches(epoch=1, batch_size=1, seed=0))


def test_workers_leave_torch_s_random_numbers_alone(make: Any) -> None:
    torch.manual_seed(0)
    batches(make(workers=1))
    found = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(found, torch.rand(1))


@pytest.mark.parametrize("threshold", [1, 10**9])
@pytest.mark.parametrize("workers", [0, 2])
def test_archives_give_the_batches_of_the_same_crops_in_files(
    crops: Path, monkeypatch: pytest.MonkeyPatch, threshold: int, workers: int
) -> None:
    """To the last bit, read at once and streamed; scores, too."""
    monkeypatch.setattr(streaming_module, "STREAMED_FROM", threshold)
    shards = write_shards(crops, crops.parent.parent / "shards", each=7)
    settings: dict[str, Any] = {
        "charset": crops.parent.parent / "dict.txt",
        "input_shape": SHAPE,
        "widths": [32, 64],
        "workers": workers,
        "rules": ListRules(allow_overlap=True),
    }
    tasks = [RecognitionTask([path], [path], **settings) for path in (crops, shards)]
    one, other = (batches(task) for task in tasks)
    assert same(one, other)
    assert [batch.targets.indices for batch in one] == [batch.targets.indices for batch in other]
    for first, second in zip(*(task.calibration_batches(10, 4) for task in tasks), strict=True):
        assert np.array_equal(first, second)
    if threshold > 1:  # streamed lists are known by their names, too
        assert tasks[0].fingerprint() == tasks[1].fingerprint()

    def predict(images: np.ndarray) -> np.ndarray:
        return np.random.default_rng(images.shape[3]).random((len(images), 16, 4), np.float32)

    assert tasks[0].evaluate(predict) == tasks[1].evaluate(predict)
