"""Text recognition with CTC: what does a word crop say?"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from compress.artifacts import Score, fingerprint
from compress.data.charset import check_classes, read_charset, steps_needed
from compress.data.images import LoadedList, content_parts, stored_in
from compress.data.labels import DEFAULT_RULES, ListRules, check_skipped, name_some, skipped_share, skipped_warning
from compress.data.lmdb_folder import load_list
from compress.data.overlap import Stored, check_overlap
from compress.data.processing import Processing, check_channels, fingerprint_parts
from compress.data.splices import is_spliced
from compress.data.streaming import StoredList, stream_lists
from compress.data.tia import augment_text
from compress.data.transforms import PPOCR, resize_crop, resized_width, stack_resized
from compress.data.unlabelled import UNREADABLE, load_unlabelled
from compress.errors import DataError, ModelError
from compress.progress import Progress
from compress.tasks.base import Batch, Case, Examination, Predict, Share
from compress.tasks.divergence import step_divergence, text_agreement
from compress.tasks.loading import load_batches, share_of
from compress.tasks.probabilities import (
    as_probabilities,
    check_probabilities,
    decoupled_kl,
    kl_divergence,
    log_probabilities,
)
from compress.tasks.sampling import (
    bucket_batches,
    count_steps,
    epoch_indices,
    epoch_size,
    fixed_sample,
    image_rng,
    shuffled_batches,
    windowed_batches,
)
from compress.tasks.words import (
    METRIC,
    StreamedWords,
    Word,
    make_words,
    reading_error,
    score_texts,
    skipped_words,
    text_warnings,
)

A = TypeVar("A", np.ndarray, Tensor)
TRAIN_HEIGHT = 2
"""Training crops taller than this times the input's height are shrunk to it once, when they are decoded."""


@dataclass(frozen=True)
class Targets:
    """Classes of each text in a batch, one after another [sum of lengths], their lengths [N], and whose they are."""

    classes: Tensor
    lengths: Tensor
    indices: tuple[int, ...]


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
        self.widths = _checked_widths(widths, input_shape[2], processing)
        self.augment = augment
        self.decouple = decouple
        self.eval_batch_size = eval_batch_size
        self.metric_name = "agreement (text)" if agreement else METRIC
        self._charset_path, self._use_space = Path(charset), use_space
        self.charset = read_charset(self._charset_path, use_space).with_blank(processing.blank)
        self._rules, self.workers = rules, workers
        streamed = stream_lists(train, TRAIN_HEIGHT * input_shape[1], rules)
        train_lists = [] if streamed else [self._load(path, TRAIN_HEIGHT * input_shape[1], rules) for path in train]
        val_lists = [self._load(path, None, rules) for path in val]
        self._train: list[Word] | StreamedWords = [
            word for part in train_lists for word in make_words(part, self.charset)
        ]
        for lists, training in ((train_lists, True), (val_lists, False)):
            for part in lists:
                # A model may well read nothing in an image: that is no fault of the list.
                more = {} if agreement else skipped_words(part, self.charset, training)
                check_skipped(part.path, {**part.skipped, **more}, part.total, rules)
        if streamed:
            self._train = StreamedWords(streamed, self.charset, str.lower if processing.lowercase else str)
            for listed in streamed:
                skipped = {**listed.skipped, "without text": self._train.empty[listed.path]}
                check_skipped(listed.path, skipped, listed.total, rules)
        self._labelled = len(self._train)
        self._train_widths = self._widths_of(self._train)
        loaded = [load_unlabelled(Path(path), TRAIN_HEIGHT * input_shape[1], rules) for path in unlabelled]
        self._unlabelled = sorted(loaded, key=lambda part: is_spliced(part.path))
        self._spliced = 0
        """How many of the training crops are spliced; they are the last."""
        self._read_val(val_lists)
        self._too_long: dict[int, int] = {}
        self._warnings: tuple[str, ...] = tuple(
            line
            for lists, training in ((train_lists, True), (val_lists, False))
            for part in lists
            for line in (*part.warnings, *text_warnings(part, self.charset, training))
        )
        self._warnings += tuple(line for listed in streamed for line in listed.warnings)
        self._warnings += self._train.warnings if isinstance(self._train, StreamedWords) else ()
        self._warnings += tuple(line for part in self._unlabelled for line in part.warnings)
        self._stored = {
            "train": StoredList(streamed) if streamed else stored_in(train_lists),
            "unlabelled": stored_in(self._unlabelled),
            "val": stored_in(val_lists),
        }
        self._warnings += check_overlap(self._stored, rules)
        total = sum(part.total for part in val_lists)
        self._skipped = skipped_share([(total - len(self._val), total)])
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
        self._fingerprint = fingerprint(
            self.kind,
            settings,
            *(part for listed in streamed for part in listed.content_parts()),
            *content_parts(train_lists),
            "val",
            *content_parts(val_lists),
            *self._skipped,
        )

    def _widths_of(self, words: list[Word] | StreamedWords) -> np.ndarray | None:
        """Widths that training crops are padded to, where they are known."""
        if isinstance(words, StreamedWords):
            return None
        return np.array([self._bucket(*word.image.shape[:2]) for word in words], np.int64)

    def _load(self, path: Path, max_height: int | None, rules: ListRules) -> LoadedList:
        """A list with its texts as the model knows them."""
        loaded = load_list(Path(path), max_height, rules)
        if not self.processing.lowercase:
            return loaded
        return replace(loaded, entries=tuple(replace(entry, text=entry.text.lower()) for entry in loaded.entries))

    def _read_val(self, lists: Sequence[LoadedList]) -> None:
        """Keep validation images resized, and their texts and widths."""
        pairs = [pair for part in lists for pair in zip(part.images, part.entries, strict=True) if pair[1].text]
        if not pairs:
            raise DataError(
                "val: no images to validate on. Name at least one label list with readable, labelled images."
            )
        self._val = [self._resize(image) for image, _ in pairs]
        self._val_texts = [entry.text for _, entry in pairs]
        self._val_names = [entry.image.name for _, entry in pairs]
        self._val_widths = np.array([self._bucket(*image.shape[:2]) for image, _ in pairs])

    def _bucket(self, height: int, width: int) -> int:
        """The width that a crop is padded to."""
        if self.processing.resize == "stretch":
            return self.widths[-1]
        width = resized_width(height, width, self.input_shape[1], self.widths[-1])
        return next(size for size in self.widths if width <= size)

    def _resize(self, image: np.ndarray) -> np.ndarray:
        """A crop at the input's height, [H, at most the largest width, 3]."""
        return resize_crop(image, (*self.input_shape[:2], self.widths[-1]), self.processing)

    def _stack(self, images: Sequence[np.ndarray], width: int) -> np.ndarray:
        """Float32 [N, C, H, width] of resized images."""
        return stack_resized(images, (*self.input_shape[:2], int(width)), self.processing)

    def _images_first(self, outputs: A) -> A:
        """A model's outputs as [N, T, K]."""
        return outputs.swapaxes(0, 1) if self.processing.layout == "tnk" else outputs

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """A model's outputs as probabilities [N, T, K]."""
        return as_probabilities(self._images_first(outputs), self.processing.outputs)

    @property
    def blank(self) -> int:
        """The class of CTC's blank."""
        return self.charset.blank

    def with_processing(self, processing: Processing) -> "RecognitionTask":
        """The same task with its images, resized already, normalised otherwise, and outputs read otherwise: to find out
        which settings a model was trained with."""
        other = copy.copy(self)
        other.processing, other.charset = processing, self.charset.with_blank(processing.blank)
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
        total, done = sum(len(part.images) for part in self._unlabelled), 0
        words: list[Word] = []
        spliced = 0
        warnings: list[str] = []
        for part in self._unlabelled:
            texts: dict[int, str] = {}
            for index, text in self._read_crops(part.images, predict):
                texts[index] = text or ""
                if on_progress:
                    on_progress(done + len(texts), total, "reading images without labels with the original")
            done += len(texts)
            entries = tuple(replace(entry, text=texts[index]) for index, entry in enumerate(part.entries))
            made = make_words(replace(part, entries=entries), self.charset)
            words += made
            spliced += len(made) if is_spliced(part.path) else 0
            empty = [entry.image.name for entry in entries if not entry.text]
            pairs = zip(part.images, entries, strict=True)
            narrow = [entry.image.name for image, entry in pairs if image.shape[1] == 1]
            warnings += skipped_warning(part.path, "the original model reads nothing in them", empty, len(entries))
            warnings += skipped_warning(part.path, "one pixel wide", narrow, len(entries))
        if not words:
            raise DataError(
                f"unlabelled: the original model reads nothing in any of {total} images. Give crops of single words or "
                "lines, as the model reads them."
            )
        other = copy.copy(self)
        other._unlabelled, other._too_long, other._spliced = [], {}, spliced
        other._train = self._train + words
        other._train_widths = self._widths_of(other._train)
        other._warnings = (*self._warnings, *warnings)
        other._fingerprint = fingerprint(
            *(self._fingerprint, "unlabelled", original, *content_parts(self._unlabelled)),
            *(("spliced", spliced) if spliced else ()),
        )
        return other

    def _read_crops(self, images: Sequence[np.ndarray], predict: Predict) -> Iterator[tuple[int, str | None]]:
        """What a model reads in training crops as they are, narrow ones first."""
        widths = np.array([self._bucket(*image.shape[:2]) for image in images], np.int64)
        chosen = np.arange(len(images))
        return self._read(predict, chosen, widths, lambda index: self._resize(images[index]))

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
        widths: dict[int, int] = {}
        words = self._train

        def width_of(place: int) -> int | None:
            assert isinstance(words, StreamedWords)
            size = words.size(int(indices[place]))
            if size is None:
                return None
            widths[place] = self._bucket(*size)
            return widths[place]

        def parts() -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
            if not isinstance(words, StreamedWords):
                assert self._train_widths is not None
                known = self._train_widths[indices]
                for places in shuffled_batches(known, epoch=epoch, batch_size=batch_size, seed=seed):
                    mine = share_of(places, self.share)
                    yield indices[mine], mine, int(known[places].max())
                return
            for places in windowed_batches(len(indices), width_of, epoch=epoch, batch_size=batch_size, seed=seed):
                mine = share_of(places, self.share)
                yield indices[mine], mine, max(widths.pop(int(place)) for place in places)
                words.check_met(self._rules)

        return load_batches(lambda part: self._train_batch(*part, epoch, seed), parts(), self.workers)

    def _train_batch(self, indices: np.ndarray, places: np.ndarray, width: int, epoch: int, seed: int) -> Batch:
        """Batch of these crops; each is augmented by its place in the epoch, where a crop may stand twice."""
        images = []
        words = [self._train[int(index)] for index in indices]
        for word, place in zip(words, places, strict=True):
            image = augment_text(word.image, image_rng(seed, epoch, place)) if self.augment else word.image
            images.append(self._resize(image))
        texts = [word.classes for word in words]
        targets = Targets(
            torch.tensor([number for classes in texts for number in classes]),
            torch.tensor([len(classes) for classes in texts]),
            tuple(map(int, indices)),
        )
        damaged = tuple(word.damaged for word in words if word.damaged)
        return Batch(torch.from_numpy(self._stack(images, width)), targets, damaged)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """CTC loss in nats per text, averaged over the batch as PaddleOCR does (not divided by the texts' lengths, as
        torch's "mean" is); `outputs` are the model's, in its layout. A text that T steps cannot hold adds zero.

        Raises:
            ModelError: the outputs are not what `processing.outputs` and `layout` say.
            DataError: K is not what the charset makes.
        """
        self._check_outputs(tuple(outputs.shape), len(batch.images))
        outputs = self._images_first(outputs)
        check_probabilities(outputs, self.processing.outputs)
        targets: Targets = batch.targets
        steps = outputs.shape[1]
        if isinstance(self._train, StreamedWords):
            self._train.note(batch.damaged, UNREADABLE)
        classes = targets.classes.split(targets.lengths.tolist())
        for index, text in zip(targets.indices, classes, strict=True):
            if steps_needed(text.tolist()) > steps:
                self._too_long[index] = steps
        losses = torch.nn.functional.ctc_loss(
            log_probabilities(outputs, self.processing.outputs).transpose(0, 1),
            targets.classes.to(outputs.device),
            torch.full((len(outputs),), steps),
            targets.lengths,
            blank=self.charset.blank,
            reduction="none",
            zero_infinity=True,
        )
        return losses.mean()

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
        """Kullback-Leibler divergence KL(teacher || student) of [N, T, K] in nats, summed over an image's steps as the
        CTC loss is, so that a weight of 1 weighs both alike; averaged over images. See `decouple`, too."""
        form = self.processing.outputs
        outputs, teacher_outputs = self._images_first(outputs), self._images_first(teacher_outputs)
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
        return dict(self._read(predict, chosen, self._val_widths, lambda index: self._val[index], share))

    def combine(self, judged: Mapping[int, str | None], limit: int | None = None) -> Examination:
        """The examination that is made of what all shares read."""
        chosen, read = np.sort(fixed_sample(len(self._val), limit)), judged
        score, tallies = score_texts(
            [read[int(index)] for index in chosen], [self._val_texts[index] for index in chosen]
        )
        score = replace(score, name=self.metric_name, skipped=self._skipped)
        tallies[self.metric_name] = tallies.pop(METRIC)
        return Examination(score, tuple(self._judge(int(index), read[int(index)]) for index in chosen), tallies)

    def figures(self) -> tuple[str, ...]:
        """The metric, and `alnum` where a text holds letters or digits (see `score_texts`)."""
        tallies = score_texts(self._val_texts, self._val_texts)[1]
        return tuple(self.metric_name if figure == METRIC else figure for figure in tallies)

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
            images = self._stack([resized(int(index)) for index in indices], widths[indices[0]])
            outputs = predict(images)
            self._check_outputs(outputs.shape, len(images))
            for index, steps in zip(indices, self._images_first(outputs), strict=True):
                usable = np.isfinite(steps).all()
                yield int(index), self.charset.decode(steps.argmax(axis=1).tolist()) if usable else None

    def _judge(self, index: int, read: str | None) -> Case:
        text = self._val_texts[index]
        return Case(index, self._val_names[index], text, read, reading_error(read, text))

    def picture(self, case: Case) -> np.ndarray:
        """The crop as it is fed, but without padding: uint8 BGR [H, w, 3]."""
        return self._val[case.index]

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
        widths = np.array([self._bucket(*word.image.shape[:2]) for word in words])
        for places in reversed(list(bucket_batches(np.arange(len(words)), widths, batch_size))):
            yield self._stack([self._resize(words[place].image) for place in places], widths[places[0]])

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
        batch, steps = ("second", "first") if self.processing.layout == "tnk" else ("first", "second")
        place = int(batch == "second")
        if shape[place] == images:
            return
        other = "ntk" if batch == "second" else "tnk"
        found = shape[1 - place] == images
        raise ModelError(
            f"model: output shape {list(shape)} for {images} images. Expected {images} as the {batch} dimension."
            f"{f' If its {steps} dimension is the batch: task.layout: {other}.' if found else ''}"
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


def _checked_widths(widths: Sequence[int], most: int, processing: Processing) -> tuple[int, ...]:
    """Raises DataError unless the widths rise to the input's, or beyond; images that are stretched have one."""
    given = tuple(widths) or (most,)
    if processing.resize == "stretch" and len(given) > 1:
        raise DataError(f"widths: got {list(given)}, but images are stretched to one (resize). Remove widths.")
    if list(given) != sorted(set(given)) or given[0] < 1 or given[-1] < most:
        raise DataError(
            f"widths: got {list(given)}. Must be rising, and the last the input's width, {most}, or more. Use e.g. "
            f"[{most // 2}, {most}]."
        )
    return given
