"""Charsets and what CTC does with them: texts to classes, and a network's best classes back to texts.

Source: PaddleOCR, ppocr/postprocess/rec_postprocess.py (BaseRecLabelDecode, CTCLabelDecode): one character a line,
class 0 is CTC's blank, the characters follow in the file's order, and then a space. Other projects have the blank last.
"""

import dataclasses
import itertools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from compress.data import paddle_config
from compress.data.embedded import read_names
from compress.data.processing import Blank
from compress.errors import DataError

BLANK = 0
"""The class of CTC's blank, unless a model has another."""
LONGEST = 16
"""Most code points of one character, e.g. of an emoji of several joined ones."""
FLAG_LETTERS = frozenset(map(chr, range(0x1F1E6, 0x1F200)))
"""A flag is a pair of them."""
SKIN_TONES = frozenset(map(chr, range(0x1F3FB, 0x1F400)))
JOINER = "\u200d"
VIRAMA = 9
"""Unicode's combining class of the mark that joins two consonants, in Devanagari and its like."""


@dataclass(frozen=True)
class Charset:
    """The characters of all classes but `blank`, in their order.

    A character may stand twice: PaddleOCR's en_dict.txt ends with a space, and another follows the file. It may be of
    several code points: PP-OCRv5's charset holds flags.
    """

    characters: tuple[str, ...]
    blank: int = BLANK

    @property
    def classes(self) -> int:
        """Number of classes K, the blank included."""
        return len(self.characters) + 1

    def encode(self, text: str) -> tuple[list[int], str]:
        """Classes of a text, and the characters in it that have none; of a character that stands twice, the last.

        >>> Charset(("a", "b", " ", " ")).encode("b a!")
        ([2, 4, 1], '!')
        >>> Charset(("a", "b"), blank=2).encode("ab")
        ([0, 1], '')
        >>> Charset(("e", "e\u0301")).encode("ee\u0301")
        ([1, 2], '')
        """
        index, characters = self._classes_of, self.split(text)
        known = [index[character] for character in characters if character in index]
        return known, "".join(character for character in characters if character not in index)

    def split(self, text: str) -> Sequence[str]:
        """The characters of a text, known or not."""
        return text if self._of_several is None else self._of_several.findall(text)

    def covers(self, text: str) -> bool:
        """Whether every character of a text has a class."""
        return self._known.issuperset(self.split(text))

    def lacks(self, text: str) -> bool:
        """Whether no character of a text has a class."""
        return self._known.isdisjoint(self.split(text))

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.characters)

    @cached_property
    def _classes_of(self) -> dict[str, int]:
        """Character -> class; made once: charsets have thousands of characters, lists millions of texts."""
        return {character: number + (number >= self.blank) for number, character in enumerate(self.characters)}

    @cached_property
    def _of_several(self) -> re.Pattern[str] | None:
        """Cuts a text into characters where some are of several code points, the longest first; None where none is."""
        several = sorted((character for character in self.characters if len(character) > 1), key=len, reverse=True)
        return re.compile("|".join([*map(re.escape, several), "."]), re.DOTALL) if several else None

    def decode(self, classes: Sequence[int]) -> str:
        """Text of the best class of each time step [T]: repeats become one, then blanks go (greedy CTC).

        >>> Charset(("a", "b")).decode([0, 1, 1, 0, 1, 2, 2, 0])
        'aab'
        """
        previous = [self.blank, *classes]
        return "".join(
            self.characters[now - (now > self.blank)]
            for before, now in zip(previous, classes, strict=False)
            if now not in (before, self.blank)
        )

    def with_blank(self, blank: Blank) -> "Charset":
        """The same characters with another blank.

        Raises:
            DataError: it is a class that the charset does not make.

        >>> Charset(("a", "b")).with_blank("last").blank
        2
        """
        index = {"first": 0, "last": len(self.characters)}[blank] if isinstance(blank, str) else blank
        if not 0 <= index < self.classes:
            raise DataError(
                f"blank: got {blank}, but the charset's {len(self.characters)} characters and the blank make "
                f"{self.classes} classes. Must be first, last, or from 0 to {self.classes - 1}."
            )
        return dataclasses.replace(self, blank=index)


def steps_needed(classes: Sequence[int]) -> int:
    """Time steps that CTC needs for a text: one a character, and a blank between equal neighbours.

    >>> steps_needed([1, 1, 2])
    4
    """
    return len(classes) + sum(before == now for before, now in itertools.pairwise(classes))


def read_charset(path: Path, use_space: bool = True) -> Charset:
    """Read a charset file (UTF-8, with or without BOM, any line ends), or what an .onnx file's metadata or PaddleOCR's
    inference.yml hold of it.

    Args:
        path: the file.
        use_space: a space follows its characters.

    Raises:
        DataError: no such file, not UTF-8, no characters, or a line that is not one character.
    """
    lines = _lines(path)
    if lines in ([""], []):
        raise DataError(f"{path}: no characters. Expected a charset: one character a line.")
    for number, line in enumerate(lines, start=1):
        if not _is_character(line):
            shown = line if len(line) <= 40 else line[:37] + "..."
            raise DataError(
                f"{path}: line {number}: got {shown!r}. Expected one character a line; each line is one class. "
                "Use the charset file that the model was trained with."
            )
    return Charset((*lines, " ") if use_space else tuple(lines))


def _lines(path: Path) -> list[str]:
    if path.suffix.lower() in paddle_config.SUFFIXES:
        return list(paddle_config.read_config(path).characters)
    text = read_names(path) if path.suffix.lower() == ".onnx" else _text(path)
    # Not splitlines: U+2028 and its like are characters that a charset may hold.
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")


def _text(path: Path) -> str:
    """What a charset file holds."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. Expected a charset: one character a line.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text (byte {error.object[error.start]:#04x} at offset {error.start}). "
            "Expected a charset: one character a line, saved as UTF-8."
        ) from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}). Expected a charset: one character a line."
        ) from error


def _is_character(line: str) -> bool:
    """Whether a line is one character: a code point, or several that are shown as one.

    >>> [_is_character(line) for line in ("a", "e\u0301", "\U0001f1e9\U0001f1ea", "ab", "a^", "")]
    [True, True, True, False, False, False]
    """
    if len(line) <= 1 or len(line) > LONGEST:
        return len(line) == 1
    flag = len(line) == 2 and all(letter in FLAG_LETTERS for letter in line)
    return flag or all(_joins(before, now) for before, now in itertools.pairwise(line))


def _joins(before: str, now: str) -> bool:
    """Whether a code point is shown together with the one before: marks, skin tones, and what a joiner joins."""
    mark = unicodedata.category(now)[0] == "M" or unicodedata.category(now) == "Cf" or now in SKIN_TONES
    return mark or before == JOINER or unicodedata.combining(before) == VIRAMA


def check_classes(charset: Charset, path: Path, classes: int, use_space: bool) -> None:
    """Raise DataError unless the charset has as many classes as the model's output has, `classes`."""
    if charset.classes == classes:
        return
    advice = "Use the charset file that the model was trained with."
    if use_space and charset.classes == classes + 1:
        advice = "If the model was trained without a space after the file's characters, set use_space: false."
    elif not use_space and charset.classes == classes - 1:
        advice = "If the model was trained with a space after the file's characters, set use_space: true."
    made = f"{len(charset.characters) - use_space} characters{', a space' if use_space else ''} and the blank"
    raise DataError(f"{path}: {made} make {charset.classes} classes, but the model's output has {classes}. {advice}")
