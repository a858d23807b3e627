"""Text recognition with CTC: what does a word crop say?"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compress.artifacts import Score, fingerprint
from compress.data.charset import check_classes, read_charset
from compress.data.images import content_parts
from compress.data.labels import DEFAULT_RULES, ListRules, name_some
from compress.data.overlap import Stored, check_overlap
from compress.data.processing import Processing, check_channels, fingerprint_parts
from compress.data.tia import augment_text
from compress.data.transforms import PPOCR
from compress.data.unlabelled import UNREADABLE
from compress.errors import DataError
from compress.progress import Progress
from compress.tasks.base import Batch, Case, Examination, Predict, Share
from compress.tasks.crop_lists import TRAIN_HEIGHT
from compress.tasks.ctc import Targets, check_batch, ctc_loss, images_first, make_targets, too_long
from compress.tasks.divergence import step_divergence, text_agreement
from compress.tasks.loading import load_batches
from compress.tasks.padded_crops import PaddedCrops, checked_widths
from compress.tasks.probabilities import (
    as_probabilities,
    check_probabilities,
    decoupled_kl,
    kl_divergence,
    log_probabilities,
)
from compress.tasks.read_words import read_words
from compress.tasks.sampling import bucket_batches, count_steps, epoch_indices, epoch_size, fixed_sample, image_rng
from compress.tasks.validation_words import ValidationWords
from compress.tasks.word_batches import known_widths, word_batches
from compress.tasks.word_lists import list_warnings, load_word_lists
from compress.tasks.words import METRIC, StreamedWords


class RecognitionTask:
    """Recognition on PaddleOCR label lists or LMDB folders, for CTC models of [N, T, K]: N images, T steps, K classes.

    A crop keeps its ratio at the input's height, and is padded with zeros on the right to the smallest of `widths` that
    holds it; one wider than the last is squeezed into it. One width, the input's, is what PaddleOCR trains and
    validates with, and the default. Where the model's width is dynamic, narrower ones save time, and wider ones keep
    lines from being squeezed, as PP-OCR's own inference does. How much is padded changes what a model with an LSTM
    reads, so scores are comparable between equal `widths` only.

    Texts with characters that the charset lacks: in training, those characters are left out, as in PaddleOCR; in
    validation the text stays whole and so counts as read wrong (PaddleOCR leaves them out there, too, which flatters
    the model). Texts without any characters are skipped in both. Crops one pixel wide are skipped in training and
    scored in validation. Texts longer than the model's time steps have no CTC loss: they add zero to it. All of these
    are counted and named in `warnings`, the last kind once training has met them.

    Images without labels have the original model's readings for labels (see `label_unlabelled`), and are then trained
    on like others: an epoch holds each labelled crop and as many of these (see `epoch_indices`). So a network that is
    trained on one kind of text keeps what it read of others.

    Determinism and caching are those of `DirectionTask`.

    Args:
        train: label lists to train and calibrate on; may be empty when only `evaluate` is used.
        val: label lists to score on.
        charset: the charset file that the model was trained with.
        use_space: a space follows the file's characters.
        input_shape: (3, H, W): the height that the model is fed; MACs and latency refer to W.
        widths: rising widths to pad to; the last must be W or more. Default W alone.
        augment: augment training images.
        unlabelled: folders, label lists or LMDB folders of crops of any kind, whose labels are not looked at.
        decouple: least weight of the teacher's characters at each step (see `decoupled_kl`); 0 is plain KL.
        agreement: the labels are what a model read: the metric is agreement with it, and has that name.
        eval_batch_size: images per call of `predict`; a number only of speed and memory.
        processing: how the model is fed, and what its output is.
        workers: processes that make training batches (see `load_batches`).
        rules: what is asked of the lists (see `ListRules`).

    Raises:
        DataError: a list or the charset is unusable, or there is nothing to validate on.
    """

    kind = "recognition"
    share: Share = (0, 1)
    error_name = "share of characters to change (edit distance)"

    def __init__(
        self,
        train: Sequence[Path],
        val: Sequence[Path],
        *,
        charset: Path,
        use_space: bool = True,
        input_shape: tuple[int, int, int] = (3, 32, 320),
        widths: Sequence[int] = (),
        augment: bool = True,
        unlabelled: Sequence[Path] = (),
        agreement: bool = False,
        decouple: float = 0.0,
        eval_batch_size: int = 64,
        processing: Processing = PPOCR,
        workers: int = 0,
        rules: ListRules = DEFAULT_RULES,
    ) -> None:
        check_channels(input_shape, processing)
        self.input_shape = input_shape
        self.processing = processing
        self.widths = checked_widths(widths, input_shape[2], processing)
        self._crops = PaddedCrops(input_shape, self.widths, processing)
        self.augment = augment
        self.decouple = decouple
        self.eval_batch_size = eval_batch_size
        self.metric_name = "agreement (text)" if agreement else METRIC
        self._charset_path, self._use_space = Path(charset), use_space
        self.charset = read_charset(self._charset_path, use_space).with_blank(processing.blank)
        self._rules, self.workers = rules, workers
        lists, self._train = load_word_lists(
            train,
            val,
            unlabelled,
            charset=self.charset,
            max_height=TRAIN_HEIGHT * input_shape[1],
            lowercase=processing.lowercase,
            agreement=agreement,
            rules=rules,
        )
        self._labelled = len(self._train)
        self._train_widths = known_widths(self._train, self._crops)
        self._unlabelled = lists.unlabelled
        self._spliced = 0
        """How many of the training crops are spliced; they are the last."""
        self._val = ValidationWords(lists.val, self._crops, self.metric_name)
        self._too_long: dict[int, int] = {}
        self._stored = lists.stored()
        self._warnings = list_warnings(lists, self._train, self.charset)
        self._warnings += check_overlap(self._stored, rules)
        settings: dict[str, object] = {
            "shape": input_shape,
            "widths": self.widths,
            "charset": self.charset.characters,
            "augment": augment,
            **({"decouple": decouple} if decouple else {}),
        }
        if agreement:
            settings["metric"] = self.metric_name
        settings |= fingerprint_parts(processing, PPOCR)
        self._fingerprint = lists.fingerprint(self.kind, settings, self._val.skipped)

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """A model's outputs as probabilities [N, T, K]."""
        return as_probabilities(images_first(outputs, self.processing.layout), self.processing.outputs)

    @property
    def blank(self) -> int:
        """The class of CTC's blank."""
        return self.charset.blank

    def with_processing(self, processing: Processing) -> "RecognitionTask":
        """The same task with its images, resized already, normalised otherwise, and outputs read otherwise: to find out
        which settings a model was trained with."""
        other = copy.copy(self)
        other.processing, other.charset = processing, self.charset.with_blank(processing.blank)
        other._crops = replace(self._crops, processing=processing)
        return other

    def label_unlabelled(
        self, predict: Predict, original: str, on_progress: Progress | None = None
    ) -> "RecognitionTask":
        """The same task, with what the original model reads in the images without labels as their texts.

        Read is the crop as it is, at the width that it is trained with; a crop in which nothing is read is skipped,
        as are labelled ones without text, and counted in `warnings`.

        Args:
            predict: the original model.
            original: its identity; with the images' pixels it becomes part of the fingerprint.
            on_progress: called as (images done, in all, message).

        Raises:
            DataError: it reads nothing in any of them.
        """
        if not self._unlabelled:
            return self
        found = read_words(
            self._unlabelled, lambda images: self._read_crops(images, predict), self.charset, on_progress
        )
        other = copy.copy(self)
        other._unlabelled, other._too_long, other._spliced = [], {}, found.spliced
        other._train = self._train + found.words
        other._train_widths = known_widths(other._train, self._crops)
        other._warnings = (*self._warnings, *found.warnings)
        other._fingerprint = fingerprint(
            *(self._fingerprint, "unlabelled", original, *content_parts(self._unlabelled)),
            *(("spliced", found.spliced) if found.spliced else ()),
        )
        return other

    def _read_crops(self, images: Sequence[np.ndarray], predict: Predict) -> Iterator[tuple[int, str | None]]:
        """What a model reads in training crops as they are, narrow ones first."""
        widths = self._crops.buckets(images)
        return self._read(predict, np.arange(len(images)), widths, lambda index: self._crops.resize(images[index]))

    def train_steps(self, batch_size: int) -> int:
        """Number of batches in an epoch (see `count_steps`).

        Raises:
            DataError: there is no training data, or some without labels (see `label_unlabelled`).
        """
        if self._unlabelled:
            raise DataError("unlabelled: the images have no labels yet. Use what label_unlabelled returns.")
        return count_steps(epoch_size(self._labelled, len(self._train) - self._labelled), batch_size)

    def _epoch_indices(self, epoch: int, seed: int) -> np.ndarray:
        """The crops of an epoch, as indices of `_train`."""
        return epoch_indices(self._labelled, len(self._train) - self._labelled, epoch=epoch, seed=seed)

    def train_batches(self, *, epoch: int, batch_size: int, seed: int) -> Iterator[Batch]:
        """Shuffled, augmented batches of one width each (see `shuffled_batches` and, for streamed lists,
        `windowed_batches`), made ahead by a thread or by `workers` processes."""
        self.train_steps(batch_size)
        indices = self._epoch_indices(epoch, seed)
        parts = word_batches(
            self._train,
            self._train_widths,
            indices,
            self._crops,
            share=self.share,
            rules=self._rules,
            epoch=epoch,
            batch_size=batch_size,
            seed=seed,
        )
        return load_batches(lambda part: self._train_batch(*part, epoch, seed), parts, self.workers)

    def _train_batch(self, indices: np.ndarray, places: np.ndarray, width: int, epoch: int, seed: int) -> Batch:
        """Batch of these crops; each is augmented by its place in the epoch, where a crop may stand twice."""
        images = []
        words = [self._train[int(index)] for index in indices]
        for word, place in zip(words, places, strict=True):
            image = augment_text(word.image, image_rng(seed, epoch, place)) if self.augment else word.image
            images.append(self._crops.resize(image))
        targets = make_targets([word.classes for word in words], indices.tolist())
        damaged = tuple(word.damaged for word in words if word.damaged)
        return Batch(torch.from_numpy(self._crops.stack(images, width)), targets, damaged)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean CTC loss of the model's outputs, in its layout (see `ctc_loss`), in nats per text.

        Raises:
            ModelError: the outputs are not what `processing.outputs` and `layout` say.
            DataError: K is not what the charset makes.
        """
        self.check_model(tuple(outputs.shape))
        check_batch(tuple(outputs.shape), len(batch.images), self.processing.layout)
        outputs = images_first(outputs, self.processing.layout)
        check_probabilities(outputs, self.processing.outputs)
        targets: Targets = batch.targets
        steps = outputs.shape[1]
        if isinstance(self._train, StreamedWords):
            self._train.note(batch.damaged, UNREADABLE)
        self._too_long |= dict.fromkeys(too_long(targets, steps), steps)
        return ctc_loss(log_probabilities(outputs, self.processing.outputs), targets, self.charset.blank)

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
        """Kullback-Leibler divergence KL(teacher || student) of [N, T, K] in nats, summed over an image's steps as the
        CTC loss is, so that a weight of 1 weighs both alike; averaged over images. See `decouple`, too."""
        form = self.processing.outputs
        outputs, teacher_outputs = (images_first(each, self.processing.layout) for each in (outputs, teacher_outputs))
        if self.decouple:
            student, teacher = (log_probabilities(each, form).exp() for each in (outputs, teacher_outputs))
            return outputs.shape[1] * decoupled_kl(student, teacher, self.charset.blank, self.decouple)
        return outputs.shape[1] * kl_divergence(outputs, teacher_outputs, form)

    def divergence(self, outputs: np.ndarray, original: np.ndarray) -> np.ndarray:
        """KL(original || outputs) of probabilities [N, T, K], in nats for each character (see `step_divergence`)."""
        check_probabilities(torch.from_numpy(original), self.processing.outputs)
        return step_divergence(self.probabilities(outputs), self.probabilities(original), self.blank)

    def agreement(self, outputs: np.ndarray, original: np.ndarray) -> np.ndarray:
        """Whether both read the same text in each image (see `text_agreement`)."""
        return text_agreement(self.probabilities(outputs), self.probabilities(original), self.charset)

    def evaluate(self, predict: Predict, limit: int | None = None) -> Score:
        """Share of texts read exactly; in `details` `alnum`, the share read right when only letters and digits count
        and case does not, of the texts that hold any, and `ned`, the mean of 1 - normalised edit distance. Outputs with
        NaN count as wrong.

        `limit`: score on at most this many images, drawn once with a fixed seed: always the same ones.
        """
        return self.examine(predict, limit).score

    def examine(self, predict: Predict, limit: int | None = None) -> Examination:
        """What `evaluate` gives, and what the model reads in each crop."""
        return self.combine(self.judge_share(predict, limit), limit)

    def judge_share(self, predict: Predict, limit: int | None = None, share: Share = (0, 1)) -> dict[int, str | None]:
        """What the model reads in every n-th batch of crops, n processes sharing them, by the crops' numbers."""
        chosen = np.sort(fixed_sample(len(self._val), limit))
        return dict(self._read(predict, chosen, self._val.widths, lambda index: self._val.images[index], share))

    def combine(self, judged: Mapping[int, str | None], limit: int | None = None) -> Examination:
        """The examination that is made of what all shares read."""
        return self._val.examine(judged, np.sort(fixed_sample(len(self._val), limit)))

    def figures(self) -> tuple[str, ...]:
        """The metric, and `alnum` where a text holds letters or digits (see `score_texts`)."""
        return self._val.figures()

    def _read(
        self,
        predict: Predict,
        chosen: np.ndarray,
        widths: np.ndarray,
        resized: Callable[[int], np.ndarray],
        share: Share = (0, 1),
    ) -> Iterator[tuple[int, str | None]]:
        """What a model reads in each chosen crop, padded to its width; None where its output is not finite."""
        for indices in islice(bucket_batches(chosen, widths, self.eval_batch_size), share[0], None, share[1]):
            images = self._crops.stack([resized(int(index)) for index in indices], widths[indices[0]])
            outputs = predict(images)
            self.check_model(outputs.shape)
            check_batch(outputs.shape, len(images), self.processing.layout)
            for index, steps in zip(indices, images_first(outputs, self.processing.layout), strict=True):
                usable = np.isfinite(steps).all()
                yield int(index), self.charset.decode(steps.argmax(axis=1).tolist()) if usable else None

    def picture(self, case: Case) -> np.ndarray:
        """The crop as it is fed, but without padding: uint8 BGR [H, w, 3]."""
        return self._val.images[case.index]

    def calibration_batches(self, count: int, batch_size: int) -> Iterator[np.ndarray]:
        """At most `count` unaugmented training images, float32 [N, 3, H, W] of one width each, drawn once with a fixed
        seed; the widest first, since the first batch is what an exported file is checked on.

        Spliced crops (see `compress.data.splices`) are not among them: nobody reads half a character at a border.

        Raises:
            DataError: there is no training data.
        """
        self.train_steps(1)
        unlabelled = len(self._train) - self._labelled
        others = unlabelled - self._spliced if self._labelled or self._spliced < unlabelled else unlabelled
        indices = epoch_indices(self._labelled, others, epoch=0, seed=0)
        chosen = indices[fixed_sample(len(indices), count)]
        words = [self._train[int(index)] for index in chosen]
        widths = self._crops.buckets([word.image for word in words])
        for places in reversed(list(bucket_batches(np.arange(len(words)), widths, batch_size))):
            yield self._crops.stack([self._crops.resize(words[place].image) for place in places], widths[places[0]])

    def check_model(self, output_shape: tuple[int | None, ...]) -> None:
        """Raise DataError unless the output is [N, T, K] with as many classes as the charset makes."""
        if len(output_shape) != 3:
            raise DataError(
                f"model: output shape {list(output_shape)} does not fit recognition. Expected "
                f"[N, steps, {self.charset.classes}]: one probability for each class at each step. Check task.kind."
            )
        if output_shape[2] is not None:
            check_classes(self.charset, self._charset_path, output_shape[2], self._use_space)

    def fingerprint(self) -> str:
        """Identity of texts and pixels of both data sets, and of the task's settings; not of file locations.

        Images without labels, of which no score depends, are part of it once `label_unlabelled` labelled them.
        """
        return self._fingerprint

    def stored_images(self) -> Mapping[str, Sequence[Stored]]:
        """The images of each of its lists (`train`, `unlabelled`, `val`) as they are stored."""
        return self._stored

    def warnings(self) -> tuple[str, ...]:
        """One line for each kind of text or image that was skipped or treated specially; see the class."""
        unusable = list(self._train.unusable) if isinstance(self._train, StreamedWords) else []
        met: tuple[str, ...] = ()
        if unusable:
            line = f"train: {len(unusable)} of {self._labelled} images, of those met so far, cannot be used: "
            met = (f"{line}{name_some(unusable)}",)
        if not self._too_long:
            return (*self._warnings, *met)
        words = self._train
        texts = [
            repr(words.text(index) if isinstance(words, StreamedWords) else words[index].text)
            for index in sorted(self._too_long)
        ]
        line = f"train: {len(texts)} of {len(self._train)} texts are longer than the model's time steps "
        return (
            *self._warnings,
            *met,
            f"{line}({max(self._too_long.values())}), nothing learned from them: {name_some(texts)}",
        )
