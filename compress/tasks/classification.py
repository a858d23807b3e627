"""Text direction: is a word crop upright ("0") or turned by 180 degrees ("180")?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from compress.artifacts import Score, fingerprint
from compress.data.augment import augment_crop
from compress.data.images import LoadedList, content_parts, stored_in
from compress.data.labels import DEFAULT_RULES, ListRules, skipped_share
from compress.data.lmdb_folder import load_list
from compress.data.overlap import check_overlap
from compress.data.prefetch import prefetch
from compress.data.transforms import resize_crop, stack_resized
from compress.errors import DataError
from compress.tasks.base import Batch, Case, Examination, Predict
from compress.tasks.probabilities import check_probabilities, kl_divergence, log_probabilities
from compress.tasks.sampling import count_steps, fixed_sample, image_rng, shuffled_batches

TRAIN_HEIGHT = 2
"""Training crops taller than this times the input's height are shrunk to it once, when they are decoded."""


@dataclass(frozen=True)
class Sample:
    """One crop as it is fed: uint8 BGR [h, w, 3], turned by 180 degrees first where `turn`; `target` is the class."""

    image: np.ndarray
    turn: bool
    target: int
    name: str = ""
    """Of its file."""

    def upright(self) -> np.ndarray:
        """The image, turned where it must be."""
        return cv2.rotate(self.image, cv2.ROTATE_180) if self.turn else self.image


class DirectionTask:
    """Direction classification on PaddleOCR label lists, for models that give probabilities [N, K].

    Two kinds of list are understood, each list by itself:
    - directions: the text is one of `labels`; the image is used as it is;
    - word crops: the text is anything; every crop is used twice, upright and turned by 180 degrees.
    `directions=None` tells them apart by their texts: all labels -> directions, few or none -> word crops, most but
    not all -> an error, because then a typing error would silently turn labels into texts. True: all lists are word
    crops that directions are made from. False: all lists hold labels.

    Images are decoded once, here. Validation images are kept resized; training images are augmented anew each epoch
    by a generator seeded with (seed, epoch, index): the same whatever the batch size, thread or process.

    Args:
        train: label lists to train and calibrate on; may be empty when only `evaluate` is used.
        val: label lists to score on.
        input_shape: (3, H, W) that the model is fed.
        labels: names of the classes, in the model's order.
        directions: see above.
        augment: augment training images.
        eval_batch_size: images per call of `predict`; a number only of speed and memory.
        rules: what is asked of the lists (see `ListRules`).

    Raises:
        DataError: a list is unusable (see `read_labels`, `load_images`), holds an unknown label, or there is
            nothing to validate on.
    """

    kind = "classification"
    metric_name = "accuracy"
    error_name = "1 - probability of the label"

    def __init__(
        self,
        train: Sequence[Path],
        val: Sequence[Path],
        *,
        input_shape: tuple[int, int, int] = (3, 48, 192),
        labels: Sequence[str] = ("0", "180"),
        directions: bool | None = None,
        augment: bool = True,
        eval_batch_size: int = 64,
        rules: ListRules = DEFAULT_RULES,
    ) -> None:
        self.input_shape = input_shape
        self.labels = tuple(labels)
        self.augment = augment
        self.eval_batch_size = eval_batch_size
        if directions is not False and len(self.labels) != 2:
            if directions:
                raise DataError(f"labels: got {list(self.labels)}. Directions made from word crops need two labels.")
            directions = False
        max_height = TRAIN_HEIGHT * input_shape[1]
        train_lists = [load_list(Path(path), max_height, rules) for path in train]
        val_lists = [load_list(Path(path), rules=rules) for path in val]
        self._train = [sample for part in train_lists for sample in make_samples(part, self.labels, directions)]
        val_samples = [sample for part in val_lists for sample in make_samples(part, self.labels, directions)]
        if not val_samples:
            raise DataError("val: no images to validate on. Name at least one label list with readable images.")
        self._val = [resize_crop(sample.upright(), input_shape) for sample in val_samples]
        self._val_targets = np.array([sample.target for sample in val_samples])
        self._val_names = [sample.name for sample in val_samples]
        self._warnings = tuple(line for part in (*train_lists, *val_lists) for line in part.warnings)
        self._warnings += check_overlap({"train": stored_in(train_lists), "val": stored_in(val_lists)}, rules)
        self._skipped = skipped_share((part.total - len(part.entries), part.total) for part in val_lists)
        self._warnings += tuple(
            f"val: no image is labelled {label!r}, so its accuracy is not measured"
            for index, label in enumerate(self.labels)
            if not (self._val_targets == index).any()
        )
        settings = {"shape": input_shape, "labels": self.labels, "directions": directions, "augment": augment}
        self._fingerprint = fingerprint(
            self.kind, settings, *content_parts(train_lists), "val", *content_parts(val_lists)
        )

    def train_steps(self, batch_size: int) -> int:
        """Number of batches in an epoch (see `count_steps`).

        Raises:
            DataError: there is no training data.
        """
        return count_steps(len(self._train), batch_size)

    def train_batches(self, *, epoch: int, batch_size: int, seed: int) -> Iterator[Batch]:
        """Shuffled, augmented batches (see `shuffled_batches`), made ahead by a thread."""
        self.train_steps(batch_size)
        parts = shuffled_batches(np.zeros(len(self._train)), epoch=epoch, batch_size=batch_size, seed=seed)
        return prefetch(self._train_batch(indices, epoch, seed) for indices in parts)

    def _train_batch(self, indices: np.ndarray, epoch: int, seed: int) -> Batch:
        images = []
        for index in indices:
            image = self._train[index].upright()
            if self.augment:
                image = augment_crop(image, image_rng(seed, epoch, index))
            images.append(resize_crop(image, self.input_shape))
        targets = torch.tensor([self._train[index].target for index in indices])
        return Batch(torch.from_numpy(stack_resized(images, self.input_shape)), targets)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean negative log-likelihood; `outputs` are probabilities [N, K], `batch.targets` classes [N].

        Raises:
            ModelError: the outputs are not probabilities (a model exported without its softmax).
        """
        check_probabilities(outputs)
        chosen = outputs.gather(1, batch.targets.to(outputs.device)[:, None])
        return -log_probabilities(chosen).mean()

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
        """Mean Kullback-Leibler divergence KL(teacher || student) of probabilities [N, K], in nats."""
        return kl_divergence(outputs, teacher_outputs)

    def evaluate(self, predict: Predict, limit: int | None = None) -> Score:
        """Accuracy over all validation images, and per class in `details`. An output of NaN counts as wrong.

        `limit`: score on at most this many images, drawn once with a fixed seed: always the same ones.
        """
        return self.examine(predict, limit).score

    def examine(self, predict: Predict, limit: int | None = None) -> Examination:
        """What `evaluate` gives, and what the model says of each image, with its probability."""
        chosen = np.sort(fixed_sample(len(self._val), limit))
        cases: list[Case] = []
        for start in range(0, len(chosen), self.eval_batch_size):
            indices = chosen[start : start + self.eval_batch_size]
            outputs = predict(stack_resized([self._val[index] for index in indices], self.input_shape))
            self.check_model(outputs.shape)
            cases += [self._judge(int(index), row) for index, row in zip(indices, outputs, strict=True)]
        targets = self._val_targets[chosen]
        right = np.array([case.error == 0 for case in cases])
        details = {}
        for index, label in enumerate(self.labels):
            of_class = right[targets == index]
            if of_class.size:
                details[f"accuracy_{label}"] = float(of_class.mean())
                details[f"count_{label}"] = float(of_class.size)
        return Examination(
            Score(float(right.mean()), self.metric_name, len(right), details, self._skipped), tuple(cases)
        )

    def _judge(self, index: int, output: np.ndarray) -> Case:
        """One image's probabilities [K]. Where another class leads, the label's cannot be above a half."""
        target = self._val_targets[index]
        found, error = None, 1.0
        if np.isfinite(output).all():
            best = int(output.argmax())
            found = f"{self.labels[best]} ({output[best]:.2f})"
            error = 0.0 if best == target else 1.0 - float(np.clip(output[target], 0.0, 0.5))
        return Case(index, self._val_names[index], self.labels[target], found, error)

    def picture(self, case: Case) -> np.ndarray:
        """The crop as it is fed, uint8 BGR [H, w, 3]."""
        return self._val[case.index]

    def calibration_batches(self, count: int, batch_size: int) -> Iterator[np.ndarray]:
        """At most `count` unaugmented training images, float32 [N, 3, H, W], drawn once with a fixed seed.

        Raises:
            DataError: there is no training data.
        """
        self.train_steps(1)
        chosen = fixed_sample(len(self._train), count)
        for start in range(0, len(chosen), batch_size):
            samples = [self._train[index] for index in chosen[start : start + batch_size]]
            yield stack_resized([resize_crop(item.upright(), self.input_shape) for item in samples], self.input_shape)

    def check_model(self, output_shape: tuple[int | None, ...]) -> None:
        """Raise DataError unless the output is [N, K] with one probability for each label."""
        if len(output_shape) != 2 or output_shape[1] not in (None, len(self.labels)):
            raise DataError(
                f"model: output shape {list(output_shape)} does not fit classification. Expected "
                f"[N, {len(self.labels)}]: one probability for each of {', '.join(self.labels)}. "
                "Check task.kind and task.labels."
            )

    def fingerprint(self) -> str:
        """Identity of texts and pixels of both data sets, and of the task's settings; not of file locations."""
        return self._fingerprint

    def warnings(self) -> tuple[str, ...]:
        """One line for each kind of image that was skipped, and for each class without validation images."""
        return self._warnings


def make_samples(loaded: LoadedList, labels: tuple[str, ...], directions: bool | None) -> list[Sample]:
    """Turn one list into samples: as labelled, or each crop in both directions (see `DirectionTask`).

    Raises:
        DataError: a text that must be a label is none; the message names line and text.
    """
    unknown = [entry for entry in loaded.entries if entry.text not in labels]
    if directions is None:
        # Labels with a few typing errors are not word crops; word crops that read "0" or "180" are rare.
        directions = 2 * len(unknown) > len(loaded.entries)
    if directions:
        named = zip(loaded.images, loaded.entries, strict=True)
        return [Sample(image, turn, int(turn), entry.image.name) for image, entry in named for turn in (False, True)]
    if unknown:
        raise DataError(
            f"{loaded.path}: line {unknown[0].line}: unknown label {unknown[0].text!r}. Allowed: {', '.join(labels)}. "
            "If these are upright word crops to make directions from, set directions: true."
        )
    pairs = zip(loaded.images, loaded.entries, strict=True)
    return [Sample(image, False, labels.index(entry.text), entry.image.name) for image, entry in pairs]
