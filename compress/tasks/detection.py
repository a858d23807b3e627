"""Text detection with DBNet: where in a scene is text?"""

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compress.artifacts import Score, fingerprint, fingerprint_each
from compress.data.charset import BLANK
from compress.data.db_targets import DbMaps, make_maps, uncounted_maps
from compress.data.labels import DEFAULT_RULES, ListRules, skipped_share
from compress.data.overlap import Stored, check_overlap, stored_files
from compress.data.processing import Processing, check_channels, fingerprint_parts, without_side
from compress.data.regions import Region
from compress.data.scenes import content_of, load_scenes
from compress.data.transforms import PPOCR_SCENES, Placed, check_multiples, fit_scene, normalise_scenes, place_scene
from compress.data.unlabelled import content_of_images, list_images, unlabelled_crop
from compress.errors import DataError, ModelError
from compress.tasks.base import Batch, Case, Examination, Predict, Share
from compress.tasks.db_boxes import BoxSettings
from compress.tasks.db_loss import DbTargets, db_loss, map_distillation, probability_loss, stack_maps
from compress.tasks.detection_cases import ERROR_NAME, judge_scene
from compress.tasks.divergence import box_agreement, map_divergence
from compress.tasks.hmean import METRIC, Matches, score_matches, tally_matches
from compress.tasks.judging import Judges, SceneMap
from compress.tasks.loading import load_batches, share_of
from compress.tasks.probabilities import check_pixels, pixel_probabilities
from compress.tasks.sampling import count_steps, fixed_sample, image_rng, shuffled_batches
from compress.tasks.scene_crops import calibration_crop, checked_augment, training_crop

CACHE_BYTES = 256_000_000
"""Resized validation images are kept up to this much; others are decoded anew for each scoring."""


class DetectionTask:
    """Detection on PaddleOCR label lists or ICDAR folders, for DBNets that give a probability map [N, 1, H, W].

    Scored is each validation image by itself, its longest side brought down to `side`, both sides multiples of 32, by
    the protocol of ICDAR 2015 at IoU 0.5; regions marked ### or * are not counted. Trained on are square
    crops. Polygons and images that cannot be used are counted and named in `warnings`; images without text are used in
    both: what is found in them counts against precision.

    A network in training that gives [N, 3, H, W] (probability, threshold and binary map) gets DBNet's whole loss if
    `threshold_maps` are requested.

    Args:
        train: label lists or folders to train and calibrate on; may be empty when only `evaluate` is used.
        val: label lists or folders to score on.
        input_shape: (3, H, W), multiples of 32: what MACs, latency and calibration refer to.
        side: longest side of a validation image, in pixels.
        crop: side of the square crops that are trained on, a multiple of 32; default the input's size.
        dilate_teacher: distil from the teacher's map widened by a pixel (see `map_distillation`).
        threshold_maps: make the targets of the threshold branch, too.
        augment: "strong" or "mild" (see `GEOMETRIES`), or "none" for training crops as they are.
        unlabelled: folders or label lists of images of any kind, whose labels are not looked at. Beside every
            labelled crop comes one of these, which only the teacher says something of: so a network that is trained
            on one kind of images keeps what it knew of others.
        agreement: the labels are the boxes that a model found: the metric is agreement with it, and has that name.
            Of training images the teacher's map alone is learned; the boxes only say where crops are taken.
        boxes: settings of the post-processing; the loss sharpens maps at its `threshold`.
        processes: in which maps become boxes while the network runs on the next image; see `Judges`.
        processing: how the model is fed, and what its output is.
        workers: processes that make training batches (see `load_batches`).
        rules: what is asked of the lists (see `ListRules`).

    Raises:
        DataError: a list is unusable, a size is no multiple of 32, or there is nothing to validate on.
    """

    kind = "detection"
    share: Share = (0, 1)
    error_name = ERROR_NAME
    blank = BLANK

    def __init__(
        self,
        train: Sequence[Path],
        val: Sequence[Path],
        *,
        input_shape: tuple[int, int, int] = (3, 640, 640),
        side: int = 1280,
        crop: int | None = None,
        dilate_teacher: bool = False,
        threshold_maps: bool = False,
        augment: str = "strong",
        unlabelled: Sequence[Path] = (),
        agreement: bool = False,
        boxes: BoxSettings | None = None,
        processes: int = 0,
        processing: Processing = PPOCR_SCENES,
        workers: int = 0,
        rules: ListRules = DEFAULT_RULES,
    ) -> None:
        self.workers = workers
        check_channels(input_shape, processing)
        check_multiples(input_shape, side, crop)
        self.input_shape = input_shape
        self.processing = processing
        self.side = side
        self.crop = (crop, crop) if crop else (input_shape[1], input_shape[2])
        self.dilate_teacher = dilate_teacher
        self.threshold_maps = threshold_maps
        self.augment = checked_augment(augment)
        self.boxes = boxes or BoxSettings()
        self.metric_name = "agreement (hmean)" if agreement else METRIC
        self._agreement = agreement
        self._judges = Judges(processes, self.boxes)
        train_lists = [load_scenes(Path(path), rules) for path in train]
        val_lists = [load_scenes(Path(path), rules) for path in val]
        self._train = [scene for part in train_lists for scene in part.scenes]
        self._val = [scene for part in val_lists for scene in part.scenes]
        if not self._val:
            raise DataError("val: no images to validate on. Name at least one label list with readable images.")
        image_files = [list_images(Path(path), rules) for path in unlabelled]
        self._unlabelled = [file for part in image_files for file in part.files]
        self._cache: dict[int, tuple[np.ndarray, tuple[int, int], tuple[Region, ...]]] = {}
        self._warnings = tuple(line for part in (*train_lists, *val_lists) for line in part.warnings)
        self._warnings += tuple(line for part in image_files for line in part.warnings)
        self._stored = {
            "train": stored_files(scene.image for scene in self._train),
            "unlabelled": stored_files(self._unlabelled),
            "val": stored_files(scene.image for scene in self._val),
        }
        self._warnings += check_overlap(self._stored, rules)
        self._skipped = skipped_share(part.counts for part in val_lists)
        self._skipped += skipped_share((part.region_counts for part in val_lists), "regions")
        parts = itertools.chain(content_of(train_lists), ["val"], content_of(val_lists))
        self._content = fingerprint_each(itertools.chain(parts, content_of_images(self._unlabelled)))

    def with_side(self, side: int) -> "DetectionTask":
        """The same task scored at another size, e.g. a smaller one for a quicker scan.

        Raises:
            DataError: the side is no multiple of 32, or images are all of the input's size.
        """
        if self.processing.resize != "limit":
            raise DataError(f"side: {without_side(self.processing.resize)}")
        check_multiples(self.input_shape, side)
        other = copy.copy(self)
        other.side, other._cache = side, {}
        return other

    def train_steps(self, batch_size: int) -> int:
        """Number of batches in an epoch (see `count_steps`).

        Raises:
            DataError: there is no training data.
        """
        return count_steps(len(self._train), batch_size)

    def train_batches(self, *, epoch: int, batch_size: int, seed: int) -> Iterator[Batch]:
        """One crop of each scene, shuffled, augmented, in batches (see `shuffled_batches`), made ahead by a thread."""
        self.train_steps(batch_size)
        parts = shuffled_batches(np.zeros(len(self._train)), epoch=epoch, batch_size=batch_size, seed=seed)
        mine = (share_of(indices, self.share) for indices in parts)
        return load_batches(lambda indices: self._train_batch(indices, epoch, seed), mine, self.workers)

    def _train_batch(self, indices: np.ndarray, epoch: int, seed: int) -> Batch:
        pairs = [
            training_crop(self._train, index, self.crop, self.augment, self._place, image_rng(seed, epoch, index))
            for index in map(int, indices)
        ]
        maps = [self._maps_of(image, regions) for image, regions in pairs]
        others = self._unlabelled_crops(indices, epoch, seed)
        maps += [uncounted_maps(*self.crop, threshold=self.threshold_maps) for _ in others]
        images = [image for image, _ in pairs] + others
        return Batch(torch.from_numpy(normalise_scenes(images, self.processing)), stack_maps(maps))

    def _maps_of(self, image: np.ndarray, regions: Sequence[Region]) -> DbMaps:
        """Targets of a training crop; where the labels are another model's, its map says more than its boxes."""
        if self._agreement:
            return uncounted_maps(*image.shape[:2], threshold=self.threshold_maps)
        return make_maps(regions, *image.shape[:2], threshold=self.threshold_maps)

    def _unlabelled_crops(self, indices: np.ndarray, epoch: int, seed: int) -> list[np.ndarray]:
        """As many as the batch has labelled ones; drawn anew for each batch of each epoch."""
        if not self._unlabelled:
            return []
        rng = image_rng(seed, epoch, len(self._train) + int(indices[0]))
        return [unlabelled_crop(self._unlabelled, self.crop, rng) for _ in indices]

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """DBNet's loss of [N, 1, H, W] or, where `threshold_maps` were made, of [N, 3, H, W].

        Raises:
            ModelError: the output is of another size, or not probabilities (exported without its sigmoid).
        """
        targets: DbTargets = batch.targets
        if outputs.dim() != 4 or outputs.shape[1] not in (1, 3) or outputs.shape[2:] != targets.text.shape[1:]:
            raise ModelError(
                f"model: output shape {list(outputs.shape)} for images {list(batch.images.shape)}. Expected "
                "[N, 1, H, W]: a probability for each pixel."
            )
        maps = pixel_probabilities(outputs, self.processing.outputs)
        probability = maps[:, 0]
        check_pixels(float(probability.detach().min()), float(probability.detach().max()))
        if outputs.shape[1] == 1:
            return probability_loss(probability, targets, self.boxes.threshold)
        if targets.threshold is None:
            raise ModelError(
                f"model: output shape {list(outputs.shape)}, three maps, but the task made no targets for the "
                "threshold's. Give [N, 1, H, W], or make the task with threshold_maps=True."
            )
        return db_loss(maps, targets)

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
        """Distance of probability maps [N, 1, H, W]; see `map_distillation`.

        Raises:
            ModelError: the teacher's output is of another size, or not probabilities.
        """
        if teacher_outputs.dim() != 4 or teacher_outputs.shape[2:] != outputs.shape[2:]:
            raise ModelError(
                f"teacher: output shape {list(teacher_outputs.shape)}, the model's is {list(outputs.shape)}. Use the "
                "detector that the model was made from."
            )
        student, teacher = (
            pixel_probabilities(each[:, 0], self.processing.outputs) for each in (outputs, teacher_outputs)
        )
        check_pixels(float(teacher.min()), float(teacher.max()), "teacher")
        return map_distillation(student, teacher, self.dilate_teacher, self.boxes.threshold)

    def mutual_loss(self, outputs: Tensor, other_outputs: Tensor) -> Tensor:
        """Distance of probability maps [N, 1, H, W] of two students, as from a teacher, but never from a dilated map:
        with every step both would find more text."""
        plain = copy.copy(self)
        plain.dilate_teacher = False
        return plain.distillation_loss(outputs, other_outputs)

    def divergence(self, outputs: np.ndarray, original: np.ndarray) -> np.ndarray:
        """Dice distance of maps [N, 1, H, W] where post-processing cuts them (see `map_divergence`)."""
        return map_divergence(self.probabilities(outputs), self.probabilities(original), self.boxes.threshold)

    def agreement(self, outputs: np.ndarray, original: np.ndarray) -> np.ndarray:
        """Hmean of the boxes against the original's (see `box_agreement`)."""
        return box_agreement(self.probabilities(outputs), self.probabilities(original), self.boxes)

    def evaluate(self, predict: Predict, limit: int | None = None) -> Score:
        """Hmean at IoU 0.5 over all validation images, precision and recall in `details`. NaN counts as no text.

        `limit`: score on at most this many images, drawn once with a fixed seed: always the same ones.
        """
        return self.examine(predict, limit).score

    def examine(self, predict: Predict, limit: int | None = None) -> Examination:
        """What `evaluate` gives, and for each image what was found, missed and wrong, with the regions to draw."""
        return self.combine(self.judge_share(predict, limit), limit)

    def judge_share(
        self, predict: Predict, limit: int | None = None, share: Share = (0, 1)
    ) -> dict[int, tuple[Matches, Case]]:
        """What is found in every n-th image, n processes sharing them, by the images' numbers."""
        return {
            scene.index: (
                matched,
                judge_scene(scene.index, scene.name, scene.regions, boxes, matched, scene.usable),
            )
            for scene, boxes, matched in self._judges.judge(self._maps(predict, limit, share))
        }

    def combine(self, judged: Mapping[int, tuple[Matches, Case]], limit: int | None = None) -> Examination:
        """The examination that is made of what all shares find."""
        chosen = np.sort(fixed_sample(len(self._val), limit)).tolist()
        matches, cases = [judged[index][0] for index in chosen], [judged[index][1] for index in chosen]
        score = replace(score_matches(matches), name=self.metric_name, skipped=self._skipped)
        return Examination(score, tuple(cases), {self.metric_name: tally_matches(matches)})

    def _maps(self, predict: Predict, limit: int | None, share: Share) -> Iterator[SceneMap]:
        """What the model makes of each validation image of a share.

        Raises:
            DataError: it makes no maps.
            ModelError: it makes maps of something other than probabilities.
        """
        for index in map(int, np.sort(fixed_sample(len(self._val), limit))[share[0] :: share[1]]):
            image, (height, width), regions = self._val_image(index)
            place = self._place_of(height, width)
            outputs = predict(normalise_scenes([image], self.processing, place))
            self.check_model(outputs.shape)
            probability, usable = place.cut(self.probabilities(outputs)[0, 0]), bool(np.isfinite(outputs).all())
            if not usable:
                probability = np.where(np.isfinite(probability), probability, np.float32(0))
            check_pixels(float(probability.min()), float(probability.max()))
            yield SceneMap(index, self._val[index].image.name, probability, height, width, regions, usable)

    def picture(self, case: Case) -> np.ndarray:
        """The image as it was decoded, uint8 BGR [h, w, 3]; a case's marks are in its pixels."""
        return self._val[case.index].load()[0]

    def _val_image(self, index: int) -> tuple[np.ndarray, tuple[int, int], tuple[Region, ...]]:
        """The resized image, and the original's (height, width) and regions."""
        if index not in self._cache:
            image, regions = self._val[index].load()
            entry = (fit_scene(image, self._place(image), self.processing), image.shape[:2], regions)
            if sum(kept.nbytes for kept, _, _ in self._cache.values()) + entry[0].nbytes > CACHE_BYTES:
                return entry
            self._cache[index] = entry
        return self._cache[index]

    def calibration_batches(self, count: int, batch_size: int) -> Iterator[np.ndarray]:
        """At most `count` unaugmented training crops, float32 [N, 3, H, W], drawn once with a fixed seed.

        Raises:
            DataError: there is no training data.
        """
        self.train_steps(1)
        chosen = fixed_sample(len(self._train), count)
        for start in range(0, len(chosen), batch_size):
            yield self._calibration_batch([int(index) for index in chosen[start : start + batch_size]])

    def _calibration_batch(self, indices: Sequence[int]) -> np.ndarray:
        if self.processing.resize == "limit":
            crops = [
                calibration_crop(self._train[index], self.input_shape[1:], self._place, self.processing, index)
                for index in indices
            ]
            return normalise_scenes(crops, self.processing)
        images = [self._train[index].load()[0] for index in indices]
        return np.concatenate(
            [
                normalise_scenes([fit_scene(image, place, self.processing)], self.processing, place)
                for image, place in ((image, self._place(image)) for image in images)
            ]
        )

    def _place_of(self, height: int, width: int) -> Placed:
        """Where a scene of that size lies in what the model is fed."""
        return place_scene(height, width, self.side, self.input_shape, self.processing)

    def _place(self, image: np.ndarray) -> Placed:
        return self._place_of(image.shape[0], image.shape[1])

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """A model's outputs as probabilities [N, 1, H, W]."""
        if self.processing.outputs == "probabilities":
            return outputs
        return pixel_probabilities(torch.from_numpy(np.ascontiguousarray(outputs)), self.processing.outputs).numpy()

    def with_processing(self, processing: Processing) -> "DetectionTask":
        """The same task with its images, resized as they are, normalised otherwise, and outputs read otherwise: to find
        out which settings a model was trained with."""
        other = copy.copy(self)
        other.processing = processing
        return other

    def check_model(self, output_shape: tuple[int | None, ...]) -> None:
        """Raise DataError unless the output is [N, 1, H, W]."""
        if len(output_shape) != 4 or output_shape[1] not in (None, 1):
            raise DataError(
                f"model: output shape {list(output_shape)} does not fit detection. Expected [N, 1, H, W]: a "
                "probability for each pixel. Check task.kind."
            )

    def fingerprint(self) -> str:
        """Identity of regions and files of both data sets, and of the task's settings; not of file locations."""
        settings = (self.input_shape, self.side, self.crop, self.dilate_teacher, self.threshold_maps, self.augment)
        named = (self.metric_name,) if self._agreement else ()
        processing = fingerprint_parts(self.processing, PPOCR_SCENES)
        more = (*named, *([processing] if processing else []), *self._skipped)
        return fingerprint(self.kind, self._content, settings, vars(self.boxes), *more)

    def postprocessing(self) -> dict[str, float]:
        """Settings of the post-processing, by their keys in a recipe."""
        keys = ("threshold", "box_threshold", "unclip_ratio", "max_candidates")
        return {key: getattr(self.boxes, key) for key in keys}

    def stored_images(self) -> Mapping[str, Sequence[Stored]]:
        """The images of each of its lists (`train`, `unlabelled`, `val`) as they are stored."""
        return self._stored

    def warnings(self) -> tuple[str, ...]:
        """One line for each kind of image or region that was skipped or repaired."""
        return self._warnings
