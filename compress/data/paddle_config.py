"""What PaddleOCR's exports say of a model in `inference.yml` beside it: its characters, its classes, how maps are read.

Source: PaddleOCR 3 and PaddleX, whose exported models (PP-OCRv5, v6) are folders of a model and this file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from compress.errors import DataError

NAME = "inference.yml"
SUFFIXES = (".yml", ".yaml")
BOX_KEYS = {
    "threshold": "thresh",
    "box_threshold": "box_thresh",
    "unclip_ratio": "unclip_ratio",
    "max_candidates": "max_candidates",
}
"""Keys of a recipe's task -> those of PaddleOCR's DBPostProcess."""


@dataclass(frozen=True)
class PaddleConfig:
    """Of the three, a model has one."""

    characters: tuple[str, ...] = ()
    """Of a recogniser, in the order of its classes, without blank and space."""
    labels: tuple[str, ...] = ()
    """Of a classifier, in the order of its outputs; of directions the degrees alone."""
    boxes: Mapping[str, float] = field(default_factory=dict)
    """Settings of a detector's post-processing, by their keys in a recipe's task."""


def config_beside(model: Path) -> Path | None:
    """The file beside a model's, if there is one."""
    file = model.parent / NAME
    return file if model.is_file() and file.is_file() else None


def read_config(file: Path) -> PaddleConfig:
    """What such a file says.

    Raises:
        DataError: no such file, or it holds none of it.
    """
    try:
        # Scalars as they are written: a character may look like a number. In C: 18,708 of them take 5 s in Python.
        content = yaml.load(file.read_bytes(), Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file.") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not YAML ({str(error).splitlines()[0]}).") from error
    after = content.get("PostProcess") if isinstance(content, dict) else None
    if not isinstance(after, dict):
        raise DataError(f"{file}: no PostProcess, as PaddleOCR's {NAME} has.")
    top = after.get("Topk")
    return PaddleConfig(
        characters=_texts(file, "character_dict", after),
        labels=tuple(name.removesuffix("_degree") for name in _texts(file, "label_list", top))
        if isinstance(top, dict)
        else (),
        boxes={ours: _number(file, key, after[key]) for ours, key in BOX_KEYS.items() if key in after},
    )


def _texts(file: Path, key: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    found = settings.get(key, [])
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise DataError(f"{file}: {key}: must be a list of texts.")
    return tuple(found)


def _number(file: Path, key: str, text: Any) -> float:
    try:
        number = float(text)
    except (TypeError, ValueError) as error:
        raise DataError(f"{file}: {key}: got {text!r}. Must be a number.") from error
    return int(number) if number.is_integer() and key == "max_candidates" else number
