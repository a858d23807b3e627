"""Texts of word crops: which of them can be trained on, what is said of the others, and how readings are scored."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein

from compress.artifacts import Score
from compress.data.charset import Charset
from compress.data.images import LoadedList
from compress.data.labels import name_some, skipped_warning
from compress.errors import DataError
from compress.measure.intervals import share_tallies

METRIC = "exact"
MAX_UNKNOWN_SHARE = 0.5
"""Texts with characters that the charset lacks, up to this share of a list; above it, it is another list's charset."""


@dataclass(frozen=True)
class Word:
    """A crop to train on, uint8 BGR [h, w, 3], its text, and the text's classes without what the charset lacks."""

    image: np.ndarray
    text: str
    classes: tuple[int, ...]


def make_words(loaded: LoadedList, charset: Charset) -> list[Word]:
    """What of a list can be trained on (see `RecognitionTask`).

    Raises:
        DataError: most texts hold characters that the charset lacks, so it is not the list's charset.
    """
    encoded = [charset.encode(entry.text) for entry in loaded.entries]
    bad = [entry for entry, (_, unknown) in zip(loaded.entries, encoded, strict=True) if unknown]
    if len(bad) > MAX_UNKNOWN_SHARE * len(encoded):
        raise DataError(
            f"{loaded.path}: {len(bad)} of {len(encoded)} texts hold characters that the charset lacks, the first is "
            f"{bad[0].text!r} in line {bad[0].line}. At most {MAX_UNKNOWN_SHARE:.0%} may. "
            "Check that charset and data fit."
        )
    return [
        Word(image, entry.text, tuple(classes))
        for image, entry, (classes, _) in zip(loaded.images, loaded.entries, encoded, strict=True)
        if classes and image.shape[1] > 1
    ]


def skipped_words(loaded: LoadedList, charset: Charset, training: bool) -> dict[str, list[str]]:
    """Why `RecognitionTask` uses a list's readable images all the same not -> their names."""
    empty = [
        entry.image.name
        for entry in loaded.entries
        if not entry.text or (training and not charset.encode(entry.text)[0])
    ]
    return {"without text": empty, **({"one pixel wide": _narrow(loaded)} if training else {})}


def _narrow(loaded: LoadedList) -> list[str]:
    pairs = zip(loaded.images, loaded.entries, strict=True)
    return [entry.image.name for image, entry in pairs if image.shape[1] == 1]


def text_warnings(loaded: LoadedList, charset: Charset, training: bool) -> tuple[str, ...]:
    """Count and name what `RecognitionTask` treats specially in one list."""
    entries, path, total = loaded.entries, loaded.path, len(loaded.entries)
    unknown = {entry: found for entry in entries if (found := charset.encode(entry.text)[1])}
    lines: tuple[str, ...] = ()
    if unknown:
        characters = "".join(sorted(set("".join(unknown.values()))))
        treated = "left out of the text" if training else "counted as read wrong"
        texts = name_some([repr(entry.text) for entry in unknown])
        lines = (
            f"{path}: {len(unknown)} of {total} texts hold {characters!r}, not in the charset, {treated}: {texts}",
        )
    for why, names in skipped_words(loaded, charset, training).items():
        lines += skipped_warning(path, why, names, total)
    if training:
        return lines
    narrow = _narrow(loaded)
    return lines + (
        (f"{path}: {len(narrow)} of {total} images are one pixel wide: {name_some(narrow)}",) if narrow else ()
    )


def score_texts(read: Sequence[str | None], texts: Sequence[str]) -> tuple[Score, dict[str, np.ndarray]]:
    """Compare what was read, None where the output was unusable, with what stands there.

    `alnum` compares letters and digits alone, whatever their case, over the texts that hold any: of the others (":",
    "%") nothing would be left to read, and a model that reads nothing in them, or anything without letters, would be
    right. Where no text holds any, there is no `alnum`.

    Returns:
        The score, and what each text adds to its figures (see `Examination.tallies`).

    >>> score, tallies = score_texts(["Exit", "stop!", None], ["Exit", "STOP", "a"])
    >>> round(score.metric, 3), {name: round(value, 3) for name, value in score.details.items()}
    (0.333, {'alnum': 0.667, 'ned': 0.333})
    >>> tallies["alnum"].tolist()
    [[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]]
    """
    pairs = list(zip(read, texts, strict=True))
    exact = [found == text for found, text in pairs]
    alnum = [found is not None and _alnum(found) == _alnum(text) for found, text in pairs if _alnum(text)]
    ned = [1.0 - reading_error(found, text) for found, text in pairs]
    details = {"alnum": float(np.mean(alnum))} if alnum else {}
    details["ned"] = float(np.mean(ned))
    tallies = {METRIC: share_tallies(exact), **({"alnum": share_tallies(alnum)} if alnum else {})}
    return Score(float(np.mean(exact)), METRIC, len(pairs), details), tallies


def reading_error(read: str | None, text: str) -> float:
    """Edit distance over the length of the longer text: 0 only if they are equal, 1 where the output was unusable.

    >>> reading_error("EXlT", "EXIT"), reading_error("", "EXIT"), reading_error(None, "a")
    (0.25, 1.0, 1.0)
    """
    return 1.0 if read is None else float(Levenshtein.normalized_distance(read, text))


def _alnum(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum())
