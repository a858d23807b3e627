"""The validation images that went worst: what their labels say, and what each model made of them."""

from dataclasses import dataclass

from compress.artifacts.store import VERSION


@dataclass(frozen=True)
class Reading:
    """What one model made of one image."""

    text: str | None
    """None where the model's output was unusable (NaN)."""
    error: float
    """0 is right; up to 1, higher is worse."""
    file: str = ""
    """The image with this model's regions drawn on it; "" where one image does for all models."""


@dataclass(frozen=True)
class Picture:
    """One image, its label, and the readings of the gallery's `models`, in their order."""

    name: str
    label: str
    readings: tuple[Reading, ...]
    file: str = ""
    """The image as it is; "" where each reading has its own. Files are named relative to the page that shows them."""


@dataclass(frozen=True)
class Gallery:
    """The worst cases of the last of `models`, the worst first, and how many there were."""

    models: tuple[str, ...]
    error_name: str
    """What errors measure."""
    images: int
    """How many were judged."""
    wrong: tuple[int, ...]
    """For each model, how many of them it did not get wholly right."""
    lost: int
    """How many the first model got right and the last one did not; `mended` is the other way round."""
    mended: int
    worse: int
    """On how many the last model's error is above the first one's; on `better` it is below."""
    better: int
    pictures: tuple[Picture, ...]
    version: int = VERSION
