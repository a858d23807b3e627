"""Texts of word crops: which of them can be trained on, what is said of the others, and how readings are scored."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rapidfuzz.distance import Levenshtein

from compress.artifacts import Score
from compress.data.charset import Charset
from compress.data.headers import TOO_LARGE, reduction
from compress.data.images import LoadedList
from compress.data.labels import name_some, skipped_warning
from compress.data.streaming import Streamed, StreamedList, find_part
from compress.data.unlabelled import UNREADABLE
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
    damaged: str = ""
    """Name of an image that cannot be decoded; `image` is black then, and there are no classes."""


def make_words(loaded: LoadedList, charset: Charset) -> list[Word]:
    """What of a list can be trained on (see `RecognitionTask`).

    Raises:
        DataError: most texts hold characters that the charset lacks, so it is not the list's charset.
    """
    encoded = [charset.encode(entry.text) for entry in loaded.entries]
    bad = [entry for entry, (_, unknown) in zip(loaded.entries, encoded, strict=True) if unknown]
    first = f"{bad[0].text!r} in line {bad[0].line}" if bad else ""
    _check_unknown(loaded.path, first, [entry.text for entry in bad], len(encoded), charset)
    return [
        Word(image, entry.text, tuple(classes))
        for image, entry, (classes, _) in zip(loaded.images, loaded.entries, encoded, strict=True)
        if classes and image.shape[1] > 1
    ]


def check_texts(path: Path, texts: Sequence[str], charset: Charset) -> None:
    """Compare a list's texts with a charset.

    Raises:
        DataError: most hold characters that the charset lacks.
    """
    bad = [text for text in texts if not charset.covers(text)]
    _check_unknown(path, repr(bad[0]) if bad else "", bad, len(texts), charset)


def _check_unknown(path: Path, first: str, bad: Sequence[str], total: int, charset: Charset) -> None:
    """Raise DataError where most texts hold characters that the charset lacks; `bad` are those that do."""
    if len(bad) <= MAX_UNKNOWN_SHARE * total:
        return
    lower = sum(charset.covers(text.lower()) for text in bad)
    advice = "Check that charset and data fit"
    if 2 * lower >= len(bad):
        advice = (
            f"In small letters {lower} of them fit: if the model reads these alone, set task.lowercase (--lowercase)"
        )
    raise DataError(
        f"{path}: {len(bad)} of {total} texts hold characters that the charset lacks, the first is {first}. "
        f"At most {MAX_UNKNOWN_SHARE:.0%} may. {advice}."
    )


class StreamedWords(Streamed):
    """The words of streamed lists, and behind them others that are in memory; read as a list of `Word` is.

    Args:
        lists: streamed lists.
        charset: of the model.
        change: what becomes of a text before it is encoded.

    Raises:
        DataError: most texts of a list hold characters that the charset lacks.
    """

    def __init__(self, lists: Sequence[StreamedList], charset: Charset, change: Callable[[str], str] = str) -> None:
        self._charset, self._change = charset, change
        self._others: Sequence[Word] = ()
        self.empty: dict[Path, list[str]] = {}
        """List -> names of the images whose text is empty or holds no character of the charset."""
        self.warnings: tuple[str, ...] = ()
        usable = [self._usable(listed) for listed in lists]
        super().__init__(lists, map(len, lists), sum(map(len, usable)))
        self._kept = np.concatenate([start + places for start, places in zip(self.starts, usable, strict=False)])

    def _usable(self, listed: StreamedList) -> np.ndarray:
        """Places of the texts that hold a character that the charset knows."""
        texts = [self._change(text) for text in listed.texts]
        bad = [index for index, text in enumerate(texts) if not self._charset.covers(text)]
        check_texts(listed.path, texts, self._charset)
        empty = {index for index, text in enumerate(texts) if self._charset.lacks(text)}
        self.empty[listed.path] = [listed.names[index] for index in sorted(empty)]
        if bad:
            shown = name_some([repr(texts[index]) for index in bad])
            self.warnings += (
                f"{listed.path}: {len(bad)} of {len(texts)} texts hold characters that are not in the charset, left "
                f"out of the text: {shown}",
            )
        self.warnings += skipped_warning(listed.path, "without text", self.empty[listed.path], listed.total)
        return np.array([index for index in range(len(texts)) if index not in empty], np.int64)

    def __len__(self) -> int:
        return len(self._kept) + len(self._others)

    def __add__(self, others: Sequence[Word]) -> "StreamedWords":
        other = copy.copy(self)
        other._others = [*self._others, *others]
        return other

    def _find(self, index: int) -> tuple[StreamedList, int, str]:
        """The list of a word, its image's place there, and its image's name."""
        number, place = find_part(self.starts, int(self._kept[index]))
        return self.lists[number], place, self.name_of(number, place)

    def text(self, index: int) -> str:
        """The text, without its image."""
        if index >= len(self._kept):
            return self._others[index - len(self._kept)].text
        listed, place, _ = self._find(index)
        return self._change(listed.texts[place])

    def size(self, index: int) -> tuple[int, int] | None:
        """Height and width of the image as it would be given out; None where it cannot be used, which is noted."""
        if index >= len(self._kept):
            image = self._others[index - len(self._kept)].image
            return image.shape[0], image.shape[1]
        listed, place, name = self._find(index)
        header = listed.header(place)
        why = UNREADABLE if header is None else TOO_LARGE if reduction(header) is None else ""
        height, width = (0, 0) if header is None or why else listed.shown_size(header)
        if why or width == 1:
            self.note([name], why or "one pixel wide")
            return None
        return height, width

    def __getitem__(self, index: int) -> Word:
        """A word with its image; where that is damaged, a black one, no text to learn, and its name."""
        if index >= len(self._kept):
            return self._others[index - len(self._kept)]
        listed, place, name = self._find(index)
        image, text = listed.image(place), self._change(listed.texts[place])
        if image is None:
            return Word(np.zeros((8, 8, 3), np.uint8), text, (), damaged=name)
        return Word(image, text, tuple(self._charset.encode(text)[0]))


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
