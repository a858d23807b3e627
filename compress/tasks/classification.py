"""Text direction: is a word crop upright ("0") or turned by 180 degrees ("180")?"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compress.artifacts import Score, fingerprint
from compress.data.augment import augment_crop
from compress.data.charset import BLANK
from compress.data.images import content_parts
from compress.data.labels import DEFAULT_RULES, ListRules, name_some, skipped_share
from compress.data.lmdb_folder import load_list
from compress.data.overlap import Stored, check_overlap
from compress.data.processing import Processing, check_channels, fingerprint_parts
from compress.data.streaming import stream_lists
from compress.data.transforms import PPOCR, resize_crop, stack_resized
from compress.data.unlabelled import UNREADABLE, load_unlabelled
from compress.errors import DataError
from compress.progress import Progress
from compress.tasks.base import Batch, Case, Examination, Predict, Share
from compress.tasks.crop_lists import TRAIN_HEIGHT, CropLists
from compress.tasks.divergence import class_agreement, row_divergence
from compress.tasks.loading import load_batches, share_of
from compress.tasks.probabilities import as_probabilities, check_probabilities, kl_divergence, log_probabilities
from compress.tasks.samples import (
    Sample,
    StreamedSamples,
    judged_samples,
    make_samples,
    make_targets,
    number_crops,
    tally_crops,
)
from compress.tasks.sampling import count_steps, epoch_indices, epoch_size, fixed_sample, image_rng, shuffled_batches


class DirectionTask:
    """Direction classification on PaddleOCR label lists, for models that say something of each class, [N, K].

    Two kinds of list are understood, each list by itself:
    - directions: the text is one of `labels`; the image is used as it is;
    - word crops: the text is anything; every crop is used twice, upright and turned by 180 degrees.
    `directions=None` tells them apart by their texts: all labels -> directions, few or none -> word crops, most but
    not all -> an error, because then a typing error would silently turn labels into texts. True: all lists are word
    crops that directions are made from. False: all lists hold labels.

    Images without labels have the original model's probabilities for targets (see `label_unlabelled`): an epoch holds
    each labelled image and as many of these (see `epoch_indices`). So a network that is trained on one kind of crops
    keeps what it knew of others. Each is used twice, as it is and turned, unless `directions` is False.

    Images are decoded once, here. Validation images are kept resized; training images are augmented anew each epoch
    by a generator seeded with (seed, epoch, index): the same whatever the batch size, thread or process.

    Args:
        train: label lists to train and calibrate on; may be empty when only `evaluate` is used.
        val: label lists to score on.
        input_shape: (3, H, W) that the model is fed.
        labels: names of the classes, in the model's order.
        directions: see above.
        augment: augment training images.
        unlabelled: folders, label lists or LMDB folders of crops of any kind, whose labels are not looked at.
        agreement: the labels are what a model said: the metric is agreement with it, and has that name.
        eval_batch_size: images per call of `predict`; a number only of speed and memory.
        processing: how the model is fed, and what its output is.
        workers: processes that make training batches (see `load_batches`).
        rules: what is asked of the lists (see `ListRules`).

    Raises:
        DataError: a list is unusable (see `read_labels`, `load_images`), holds an unknown label, or there is
            nothing to validate on.
    """

    kind = "classification"
    share: Share = (0, 1)
    error_name = "1 - probability of the label"
    blank = BLANK

    def __init__(
        self,
        train: Sequence[Path],
        val: Sequence[Path],
        *,
        input_shape: tuple[int, int, int] = (3, 48, 192),
        labels: Sequence[str] = ("0", "180"),
        directions: bool | None = None,
        augment: bool = True,
        unlabelled: Sequence[Path] = (),
        agreement: bool = False,
        eval_batch_size: int = 64,
        processing: Processing = PPOCR,
        workers: int = 0,
        rules: ListRules = DEFAULT_RULES,
    ) -> None:
        self.workers, self._rules = workers, rules
        check_channels(input_shape, processing)
        self.input_shape = input_shape
        self.processing = processing
        self.labels = tuple(labels)
        self.augment = augment
        self.eval_batch_size = eval_batch_size
        self.metric_name = "agreement (class)" if agreement else "accuracy"
        if directions is not False and len(self.labels) != 2:
            if directions:
                raise DataError(f"labels: got {list(self.labels)}. Directions made from word crops need two labels.")
            directions = False
        max_height = TRAIN_HEIGHT * input_shape[1]
        streamed = stream_lists(train, max_height, rules)
        train_lists = [] if streamed else [load_list(Path(path), max_height, rules) for path in train]
        val_lists = [load_list(Path(path), rules=rules) for path in val]
        self._train: list[Sample] | StreamedSamples = [
            sample for part in train_lists for sample in make_samples(part, self.labels, directions)
        ]
        if streamed:
            self._train = StreamedSamples(streamed, self.labels, directions)
        self._labelled = len(self._train)
        self._unlabelled = [load_unlabelled(Path(path), max_height, rules) for path in unlabelled]
        self._turns = (False,) if directions is False else (False, True)
        val_samples = [sample for part in val_lists for sample in make_samples(part, self.labels, directions)]
        if not val_samples:
            raise DataError("val: no images to validate on. Name at least one label list with readable images.")
        self._val = [self._resize(sample.upright()) for sample in val_samples]
        self._val_targets = np.array([sample.target for sample in val_samples])
        self._val_names = [sample.name for sample in val_samples]
        self._val_crops = number_crops(val_samples, by_content=agreement)
        lists = CropLists(train_lists, streamed, val_lists, self._unlabelled)
        self._warnings = lists.warnings()
        self._stored = lists.stored()
        self._warnings += check_overlap(self._stored, rules)
        self._skipped = skipped_share((part.total - len(part.entries), part.total) for part in val_lists)
        self._warnings += tuple(
            f"val: no image is labelled {label!r}, so its accuracy is not measured"
            for index, label in enumerate(self.labels)
            if not (self._val_targets == index).any()
        )
        settings: dict[str, object] = {
            "shape": input_shape,
            "labels": self.labels,
            "directions": directions,
            "augment": augment,
        }
        if agreement:
            settings["metric"] = self.metric_name
        settings |= fingerprint_parts(processing, PPOCR)
        self._fingerprint = lists.fingerprint(self.kind, settings, self._skipped)

    def label_unlabelled(self, predict: Predict, original: str, on_progress: Progress | None = None) -> "DirectionTask":
        """The same task, with the probabilities that the original model gives for images without labels as targets.

        Args:
            predict: the original model.
            original: its identity; with the images' pixels it becomes part of the fingerprint.
            on_progress: called as (images done, in all, message).

        Raises:
            DataError: its output is not finite for any of them.
        """
        if not self._unlabelled:
            return self
        found, warnings = judged_samples(
            self._unlabelled,
            lambda samples: self._outputs(samples, predict),
            self._turns,
            self.eval_batch_size,
            on_progress,
        )
        other = copy.copy(self)
        other._unlabelled = []
        other._train = self._train + found
        other._warnings = (*self._warnings, *warnings)
        other._fingerprint = fingerprint(
            self._fingerprint, "unlabelled", original, self._turns, *content_parts(self._unlabelled)
        )
        return other

    def _outputs(self, samples: Sequence[Sample], predict: Predict) -> np.ndarray:
        """What a model says of samples as they are: [N, K]."""
        return self._predict([self._resize(sample.upright()) for sample in samples], predict)

    def _resize(self, image: np.ndarray) -> np.ndarray:
        return resize_crop(image, self.input_shape, self.processing)

    def _stack(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return stack_resized(images, self.input_shape, self.processing)

    def _predict(self, images: Sequence[np.ndarray], predict: Predict) -> np.ndarray:
        """Probabilities [N, K] of resized images."""
        outputs = predict(self._stack(images))
        self.check_model(outputs.shape)
        return self.probabilities(outputs)

    def train_steps(self, batch_size: int) -> int:
        """Number of batches in an epoch (see `count_steps`).

        Raises:
            DataError: there is no training data, or some without labels (see `label_unlabelled`).
        """
        if self._unlabelled:
            raise DataError("unlabelled: the images have no labels yet. Use what label_unlabelled returns.")
        return count_steps(epoch_size(self._labelled, len(self._train) - self._labelled), batch_size)

    def _epoch_indices(self, epoch: int, seed: int) -> np.ndarray:
        """The samples of an epoch, as indices of `_train`."""
        return epoch_indices(self._labelled, len(self._train) - self._labelled, epoch=epoch, seed=seed)

    def train_batches(self, *, epoch: int, batch_size: int, seed: int) -> Iterator[Batch]:
        """Shuffled, augmented batches (see `shuffled_batches`), made ahead by a thread."""
        self.train_steps(batch_size)
        indices = self._epoch_indices(epoch, seed)
        parts = shuffled_batches(np.zeros(len(indices)), epoch=epoch, batch_size=batch_size, seed=seed)
        shares = (share_of(places, self.share) for places in parts)
        return load_batches(
            lambda places: self._train_batch(indices[places], places, epoch, seed), shares, self.workers
        )

    def _train_batch(self, indices: np.ndarray, places: np.ndarray, epoch: int, seed: int) -> Batch:
        """Batch of these samples; each is augmented by its place in the epoch, where a sample may stand twice."""
        images = []
        samples = [self._train[int(index)] for index in indices]
        for sample, place in zip(samples, places, strict=True):
            image = sample.upright()
            if self.augment:
                image = augment_crop(image, image_rng(seed, epoch, place))
            images.append(self._resize(image))
        damaged = tuple(name for sample in samples for name in sample.instead_of)
        return Batch(torch.from_numpy(self._stack(images)), self._targets(samples), damaged)

    def _targets(self, samples: Sequence[Sample]) -> Tensor:
        """Classes [N] where all training images are labelled, else probabilities [N, K]."""
        return make_targets(samples, len(self.labels), probabilities=self._labelled != len(self._train))

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean cross entropy; `outputs` are the model's [N, K], `batch.targets` classes [N] or probabilities [N, K].

        Raises:
            ModelError: the outputs are not what `processing.outputs` says (a model exported without its softmax).
        """
        if isinstance(self._train, StreamedSamples) and batch.damaged:
            self._train.note(batch.damaged, UNREADABLE)
            self._train.check_met(self._rules)
        form = self.processing.outputs
        check_probabilities(outputs, form)
        targets = batch.targets.to(outputs.device)
        if targets.dim() == 2:
            return -(targets * log_probabilities(outputs, form)).sum(dim=1).mean()
        if form != "probabilities":
            return torch.nn.functional.nll_loss(log_probabilities(outputs, form), targets)
        chosen = outputs.gather(1, targets[:, None])
        return -log_probabilities(chosen).mean()

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
        """Mean Kullback-Leibler divergence KL(teacher || student) of outputs [N, K], in nats."""
        return kl_divergence(outputs, teacher_outputs, self.processing.outputs)

    def divergence(self, outputs: np.ndarray, original: np.ndarray) -> np.ndarray:
        """KL(original || outputs) of each image's probabilities [N, K], in nats."""
        check_probabilities(torch.from_numpy(original), self.processing.outputs)
        return row_divergence(self.probabilities(outputs), self.probabilities(original))

    def agreement(self, outputs: np.ndarray, original: np.ndarray) -> np.ndarray:
        """Whether both say the same class of each image (see `class_agreement`)."""
        return class_agreement(outputs, original)

    def evaluate(self, predict: Predict, limit: int | None = None) -> Score:
        """Accuracy over all validation images, and per class in `details`. An output of NaN counts as wrong.

        `limit`: score on at most this many images, drawn once with a fixed seed: always the same ones.
        """
        return self.examine(predict, limit).score

    def examine(self, predict: Predict, limit: int | None = None) -> Examination:
        """What `evaluate` gives, and what the model says of each image, with its probability."""
        return self.combine(self.judge_share(predict, limit), limit)

    def judge_share(self, predict: Predict, limit: int | None = None, share: Share = (0, 1)) -> dict[int, Case]:
        """What the model says of every n-th batch of images, n processes sharing them, by the images' numbers."""
        chosen = np.sort(fixed_sample(len(self._val), limit))
        judged: dict[int, Case] = {}
        for start in range(0, len(chosen), self.eval_batch_size)[share[0] :: share[1]]:
            indices = chosen[start : start + self.eval_batch_size]
            outputs = self._predict([self._val[index] for index in indices], predict)
            judged |= {int(index): self._judge(int(index), row) for index, row in zip(indices, outputs, strict=True)}
        return judged

    def combine(self, judged: Mapping[int, Case], limit: int | None = None) -> Examination:
        """The examination that is made of what all shares say."""
        chosen = np.sort(fixed_sample(len(self._val), limit))
        cases = [judged[int(index)] for index in chosen]
        targets = self._val_targets[chosen]
        right = np.array([case.error == 0 for case in cases])
        details = {}
        for index, label in enumerate(self.labels):
            of_class = right[targets == index]
            if of_class.size:
                details[f"{self.metric_name.split()[0]}_{label}"] = float(of_class.mean())
                details[f"count_{label}"] = float(of_class.size)
        score = Score(float(right.mean()), self.metric_name, len(right), details, self._skipped)
        return Examination(score, tuple(cases), {self.metric_name: tally_crops(right, self._val_crops[chosen])})

    def _judge(self, index: int, output: np.ndarray) -> Case:
        """One image's probabilities [K]. Where another class leads, the label's cannot be above a half."""
        target = self._val_targets[index]
        found, error = None, 1.0
        if np.isfinite(output).all():
            best = int(output.argmax())
            found = f"{self.labels[best]} ({output[best]:.2f})"
            error = 0.0 if best == target else 1.0 - float(np.clip(output[target], 0.0, 0.5))
        return Case(index, self._val_names[index], self.labels[target], found, error)

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """A model's outputs as probabilities [N, K]."""
        return as_probabilities(outputs, self.processing.outputs)

    def with_processing(self, processing: Processing) -> "DirectionTask":
        """The same task with its images, resized already, normalised otherwise, and outputs read otherwise: to find out
        which settings a model was trained with."""
        other = copy.copy(self)
        other.processing = processing
        return other

    def picture(self, case: Case) -> np.ndarray:
        """The crop as it is fed, uint8 BGR [H, w, 3]."""
        return self._val[case.index]

    def calibration_batches(self, count: int, batch_size: int) -> Iterator[np.ndarray]:
        """At most `count` unaugmented training images, float32 [N, 3, H, W], drawn once with a fixed seed.

        Raises:
            DataError: there is no training data.
        """
        self.train_steps(1)
        indices = self._epoch_indices(0, 0)
        chosen = indices[fixed_sample(len(indices), count)]
        for start in range(0, len(chosen), batch_size):
            samples = [self._train[int(index)] for index in chosen[start : start + batch_size]]
            yield self._stack([self._resize(item.upright()) for item in samples])

    def check_model(self, output_shape: tuple[int | None, ...]) -> None:
        """Raise DataError unless the output is [N, K] with one probability for each label."""
        if len(output_shape) != 2 or output_shape[1] not in (None, len(self.labels)):
            raise DataError(
                f"model: output shape {list(output_shape)} does not fit classification. Expected "
                f"[N, {len(self.labels)}]: one probability for each of {', '.join(self.labels)}. "
                "Check task.kind and task.labels."
            )

    def fingerprint(self) -> str:
        """Identity of texts and pixels of both data sets, and of the task's settings; not of file locations.

        Images without labels, of which no score depends, are part of it once `label_unlabelled` labelled them.
        """
        return self._fingerprint

    def stored_images(self) -> Mapping[str, Sequence[Stored]]:
        """The images of each of its lists (`train`, `unlabelled`, `val`) as they are stored."""
        return self._stored

    def warnings(self) -> tuple[str, ...]:
        """One line for each kind of image that was skipped, and for each class without validation images."""
        unusable = sorted(self._train.unusable) if isinstance(self._train, StreamedSamples) else []
        if not unusable:
            return self._warnings
        line = f"train: {len(unusable)} images, of those met so far, cannot be decoded: {name_some(unusable)}"
        return (*self._warnings, line)
