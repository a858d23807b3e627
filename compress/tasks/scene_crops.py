"""Crops of scenes that a detector is trained and calibrated on."""

from collections.abc import Callable, Sequence

import numpy as np

from compress.data.processing import Processing
from compress.data.regions import Region
from compress.data.scene_augment import GEOMETRIES, change_light, copy_paste, fixed_crop, random_crop
from compress.data.scenes import Scene, scale_regions
from compress.data.transforms import Placed, fit_scene
from compress.errors import DataError
from compress.tasks.sampling import image_rng

PASTE_SHARE = 0.3
"""Share of training crops that text of another scene is pasted into."""


def checked_augment(augment: str) -> str:
    """How training crops are changed; DataError where there is no such way."""
    allowed = (*GEOMETRIES, "none")
    if augment not in allowed:
        raise DataError(f"augment: got {augment!r}. Must be one of {', '.join(allowed)}.")
    return augment


def training_crop(
    scenes: Sequence[Scene],
    index: int,
    size: tuple[int, int],
    augment: str,
    place: Callable[[np.ndarray], Placed],
    rng: np.random.Generator,
) -> tuple[np.ndarray, tuple[Region, ...]]:
    """A crop uint8 [H, W, 3] of that size, with its regions.

    Args:
        scenes: all of them: text of another one is pasted into some crops.
        index: of the scene that it is of.
        size: (H, W).
        augment: one of `GEOMETRIES`, or "none".
        place: image -> how large it is scored.
        rng: of all that is drawn.
    """
    image, regions = scenes[index].load()
    factor = place(image).height / image.shape[0]
    if augment == "none":
        return random_crop(image, regions, size, factor, rng)
    if rng.random() < PASTE_SHARE:
        other = scenes[int(rng.integers(len(scenes)))]
        image, regions = copy_paste(image, regions, *other.load(), rng)
    crop, regions = random_crop(image, regions, size, factor, rng, GEOMETRIES[augment])
    return change_light(crop, rng), regions


def calibration_crop(
    scene: Scene, size: tuple[int, int], place: Callable[[np.ndarray], Placed], processing: Processing, index: int
) -> np.ndarray:
    """A crop uint8 [H, W, 3] of that size of a scene as large as it is scored; `index` says where it is cut out."""
    image, regions = scene.load()
    resized = fit_scene(image, place(image), processing)
    x, y = resized.shape[1] / image.shape[1], resized.shape[0] / image.shape[0]
    return fixed_crop(resized, scale_regions(regions, x, y), size, image_rng(0, 0, index))
