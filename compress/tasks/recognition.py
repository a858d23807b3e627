"""Text recognition with CTC: what does a word crop say?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compress.artifacts import Score, fingerprint
from compress.data.charset import BLANK, check_classes, read_charset, steps_needed
from compress.data.images import LoadedList, content_parts, stored_in
from compress.data.labels import DEFAULT_RULES, ListRules, check_skipped, name_some, skipped_share
from compress.data.lmdb_folder import load_list
from compress.data.overlap import check_overlap
from compress.data.prefetch import prefetch
from compress.data.tia import augment_text
from compress.data.transforms import resize_crop, resized_width, stack_resized
from compress.errors import DataError, ModelError
from compress.tasks.base import Batch, Case, Examination, Predict
from compress.tasks.probabilities import check_probabilities, kl_divergence, log_probabilities
from compress.tasks.sampling import bucket_batches, count_steps, fixed_sample, image_rng, shuffled_batches
from compress.tasks.words import METRIC, make_words, reading_error, score_texts, skipped_words, text_warnings

TRAIN_HEIGHT = 2
"""Training crops taller than this times the input's height are shrunk to it once, when they are decoded."""


@dataclass(frozen=True)
class Targets:
    """Classes of each text in a batch, one after another [sum of lengths], their lengths [N], and whose they are."""

    classes: Tensor
    lengths: Tensor
    indices: tuple[int, ...]


class RecognitionTask:
    """Recognition on PaddleOCR label lists or LMDB folders, for CTC models that give probabilities [N, T, K].

    A crop keeps its ratio at the input's height, and is padded with zeros on the right to the smallest of `widths` that
    holds it; one wider than the last is squeezed into it. One width, the input's, is what PaddleOCR trains and
    validates with, and the default. More of them save time, where the model's width is dynamic. How much is padded
    changes what a model with an LSTM reads, so scores are comparable between equal `widths` only.

    Texts with characters that the charset lacks: in training, those characters are left out, as in PaddleOCR; in
    validation the text stays whole and so counts as read wrong (PaddleOCR leaves them out there, too, which flatters
    the model). Texts without any characters are skipped in both. Crops one pixel wide are skipped in training and
    scored in validation. Texts longer than the model's time steps have no CTC loss: they add zero to it. All of these
    are counted and named in `warnings`, the last kind once training has met them.

    Determinism and caching are those of `DirectionTask`.

    Args:
        train: label lists to train and calibrate on; may be empty when only `evaluate` is used.
        val: label lists to score on.
        charset: the charset file that the model was trained with.
        use_space: a space follows the file's characters.
        input_shape: (3, H, W): the height that the model is fed, and the largest width.
        widths: rising widths to pad to; the last must be W. Default W alone.
        augment: augment training images.
        eval_batch_size: images per call of `predict`; a number only of speed and memory.
        rules: what is asked of the lists (see `ListRules`).

    Raises:
        DataError: a list or the charset is unusable, or there is nothing to validate on.
    """

    kind = "recognition"
    metric_name = METRIC
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
        eval_batch_size: int = 64,
        rules: ListRules = DEFAULT_RULES,
    ) -> None:
        self.input_shape = input_shape
        self.widths = _checked_widths(widths, input_shape[2])
        self.augment = augment
        self.eval_batch_size = eval_batch_size
        self._charset_path, self._use_space = Path(charset), use_space
        self.charset = read_charset(self._charset_path, use_space)
        train_lists = [load_list(Path(path), TRAIN_HEIGHT * input_shape[1], rules) for path in train]
        val_lists = [load_list(Path(path), rules=rules) for path in val]
        self._train = [word for part in train_lists for word in make_words(part, self.charset)]
        for lists, training in ((train_lists, True), (val_lists, False)):
            for part in lists:
                more = skipped_words(part, self.charset, training)
                check_skipped(part.path, {**part.skipped, **more}, part.total, rules)
        self._train_widths = np.array([self._bucket(word.image) for word in self._train], np.int64)
        self._read_val(val_lists)
        self._too_long: dict[int, int] = {}
        self._warnings = tuple(
            line
            for lists, training in ((train_lists, True), (val_lists, False))
            for part in lists
            for line in (*part.warnings, *text_warnings(part, self.charset, training))
        )
        self._warnings += check_overlap({"train": stored_in(train_lists), "val": stored_in(val_lists)}, rules)
        scored = sum(bool(entry.text) for part in val_lists for entry in part.entries)
        total = sum(part.total for part in val_lists)
        self._skipped = skipped_share([(total - scored, total)])
        settings = {"shape": input_shape, "widths": self.widths, "charset": self.charset.characters, "augment": augment}
        self._fingerprint = fingerprint(
            self.kind, settings, *content_parts(train_lists), "val", *content_parts(val_lists)
        )

    def _read_val(self, lists: Sequence[LoadedList]) -> None:
        """Keep validation images resized, and their texts and widths."""
        pairs = [pair for part in lists for pair in zip(part.images, part.entries, strict=True) if pair[1].text]
        if not pairs:
            raise DataError(
                "val: no images to validate on. Name at least one label list with readable, labelled images."
            )
        self._val = [resize_crop(image, self.input_shape) for image, _ in pairs]
        self._val_texts = [entry.text for _, entry in pairs]
        self._val_names = [entry.image.name for _, entry in pairs]
        self._val_widths = np.array([self._bucket(image) for image, _ in pairs])

    def _bucket(self, image: np.ndarray) -> int:
        """The width that a crop [h, w, 3] is padded to."""
        _, height, most = self.input_shape
        width = resized_width(image.shape[0], image.shape[1], height, most)
        return next(size for size in self.widths if width <= size)

    def _stack(self, images: Sequence[np.ndarray], width: int) -> np.ndarray:
        """Float32 [N, 3, H, width] of resized images."""
        return stack_resized(images, (*self.input_shape[:2], int(width)))

    def train_steps(self, batch_size: int) -> int:
        """Number of batches in an epoch (see `count_steps`).

        Raises:
            DataError: there is no training data.
        """
        return count_steps(len(self._train), batch_size)

    def train_batches(self, *, epoch: int, batch_size: int, seed: int) -> Iterator[Batch]:
        """Shuffled, augmented batches of one width each (see `shuffled_batches`), made ahead by a thread."""
        self.train_steps(batch_size)
        parts = shuffled_batches(self._train_widths, epoch=epoch, batch_size=batch_size, seed=seed)
        return prefetch(self._train_batch(indices, epoch, seed) for indices in parts)

    def _train_batch(self, indices: np.ndarray, epoch: int, seed: int) -> Batch:
        images = []
        for index in indices:
            image = self._train[index].image
            if self.augment:
                image = augment_text(image, image_rng(seed, epoch, index))
            images.append(resize_crop(image, self.input_shape))
        texts = [self._train[index].classes for index in indices]
        targets = Targets(
            torch.tensor([number for classes in texts for number in classes]),
            torch.tensor([len(classes) for classes in texts]),
            tuple(map(int, indices)),
        )
        return Batch(torch.from_numpy(self._stack(images, self._train_widths[indices].max())), targets)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """CTC loss in nats per text, averaged over the batch as PaddleOCR does (not divided by the texts' lengths, as
        torch's "mean" is); `outputs` are probabilities [N, T, K]. A text that T steps cannot hold adds zero.

        Raises:
            ModelError: the outputs are not probabilities (a model exported without its softmax), or not [N, T, K].
            DataError: K is not what the charset makes.
        """
        self._check_outputs(tuple(outputs.shape), len(batch.images))
        check_probabilities(outputs)
        targets: Targets = batch.targets
        steps = outputs.shape[1]
        for index in targets.indices:
            if steps_needed(self._train[index].classes) > steps:
                self._too_long[index] = steps
        losses = torch.nn.functional.ctc_loss(
            log_probabilities(outputs).transpose(0, 1),
            targets.classes.to(outputs.device),
            torch.full((len(outputs),), steps),
            targets.lengths,
            blank=BLANK,
            reduction="none",
            zero_infinity=True,
        )
        return losses.mean()

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
        """Kullback-Leibler divergence KL(teacher || student) of [N, T, K] in nats, summed over an image's steps as the
        CTC loss is, so that a weight of 1 weighs both alike; averaged over images."""
        return outputs.shape[1] * kl_divergence(outputs, teacher_outputs)

    def evaluate(self, predict: Predict, limit: int | None = None) -> Score:
        """Share of texts read exactly; in `details` `alnum`, the share read right when only letters and digits count
        and case does not, of the texts that hold any, and `ned`, the mean of 1 - normalised edit distance. Outputs with
        NaN count as wrong.

        `limit`: score on at most this many images, drawn once with a fixed seed: always the same ones.
        """
        return self.examine(predict, limit).score

    def examine(self, predict: Predict, limit: int | None = None) -> Examination:
        """What `evaluate` gives, and what the model reads in each crop."""
        chosen = np.sort(fixed_sample(len(self._val), limit))
        read: dict[int, str | None] = {}
        for indices in bucket_batches(chosen, self._val_widths, self.eval_batch_size):
            images = self._stack([self._val[index] for index in indices], self._val_widths[indices[0]])
            outputs = predict(images)
            self._check_outputs(outputs.shape, len(images))
            for index, steps in zip(indices, outputs, strict=True):
                usable = np.isfinite(steps).all()
                read[int(index)] = self.charset.decode(steps.argmax(axis=1).tolist()) if usable else None
        score = score_texts([read[int(index)] for index in chosen], [self._val_texts[index] for index in chosen])
        score = replace(score, skipped=self._skipped)
        return Examination(score, tuple(self._judge(int(index), read[int(index)]) for index in chosen))

    def _judge(self, index: int, read: str | None) -> Case:
        text = self._val_texts[index]
        return Case(index, self._val_names[index], text, read, reading_error(read, text))

    def picture(self, case: Case) -> np.ndarray:
        """The crop as it is fed, but without padding: uint8 BGR [H, w, 3]."""
        return self._val[case.index]

    def calibration_batches(self, count: int, batch_size: int) -> Iterator[np.ndarray]:
        """At most `count` unaugmented training images, float32 [N, 3, H, W] of one width each, drawn once with a fixed
        seed; the widest first, since the first batch is what an exported file is checked on.

        Raises:
            DataError: there is no training data.
        """
        self.train_steps(1)
        chosen = fixed_sample(len(self._train), count)
        for indices in reversed(list(bucket_batches(chosen, self._train_widths, batch_size))):
            images = [resize_crop(self._train[index].image, self.input_shape) for index in indices]
            yield self._stack(images, self._train_widths[indices[0]])

    def check_model(self, output_shape: tuple[int | None, ...]) -> None:
        """Raise DataError unless the output is [N, T, K] with as many classes as the charset makes."""
        if len(output_shape) != 3:
            raise DataError(
                f"model: output shape {list(output_shape)} does not fit recognition. Expected "
                f"[N, steps, {self.charset.classes}]: one probability for each class at each step. Check task.kind."
            )
        if output_shape[2] is not None:
            check_classes(self.charset, self._charset_path, output_shape[2], self._use_space)

    def _check_outputs(self, shape: tuple[int, ...], images: int) -> None:
        self.check_model(shape)
        if shape[0] != images:
            raise ModelError(
                f"model: output shape {list(shape)} for {images} images. Expected [{images}, steps, classes]: "
                "export the model with the batch as the first dimension."
            )

    def fingerprint(self) -> str:
        """Identity of texts and pixels of both data sets, and of the task's settings; not of file locations."""
        return self._fingerprint

    def warnings(self) -> tuple[str, ...]:
        """One line for each kind of text or image that was skipped or treated specially; see the class."""
        if not self._too_long:
            return self._warnings
        texts = [repr(self._train[index].text) for index in sorted(self._too_long)]
        line = f"train: {len(texts)} of {len(self._train)} texts are longer than the model's time steps "
        return (
            *self._warnings,
            f"{line}({max(self._too_long.values())}), nothing learned from them: {name_some(texts)}",
        )


def _checked_widths(widths: Sequence[int], most: int) -> tuple[int, ...]:
    """Raises DataError unless the widths rise to the input's."""
    given = tuple(widths) or (most,)
    if list(given) != sorted(set(given)) or given[0] < 1 or given[-1] != most:
        raise DataError(
            f"widths: got {list(given)}. Must be rising, and the last the input's width, {most}. Use e.g. "
            f"[{most // 2}, {most}]."
        )
    return given
