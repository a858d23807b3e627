"""Charset files and what CTC does with them: texts to classes, and a network's best classes back to texts.

Source: PaddleOCR, ppocr/postprocess/rec_postprocess.py (BaseRecLabelDecode, CTCLabelDecode): one character a line,
class 0 is CTC's blank, the characters follow in the file's order, and then a space.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.errors import DataError

BLANK = 0


@dataclass(frozen=True)
class Charset:
    """The characters of classes 1, 2, ...; class 0 is the blank.

    A character may stand twice: PaddleOCR's en_dict.txt ends with a space, and another follows the file.
    """

    characters: tuple[str, ...]

    @property
    def classes(self) -> int:
        """Number of classes K, the blank included."""
        return len(self.characters) + 1

    def encode(self, text: str) -> tuple[list[int], str]:
        """Classes of a text, and the characters in it that have none; of a character that stands twice, the last.

        >>> Charset(("a", "b", " ", " ")).encode("b a!")
        ([2, 4, 1], '!')
        """
        index = {character: number for number, character in enumerate(self.characters, start=1)}
        known = [index[character] for character in text if character in index]
        return known, "".join(character for character in text if character not in index)

    def decode(self, classes: Sequence[int]) -> str:
        """Text of the best class of each time step [T]: repeats become one, then blanks go (greedy CTC).

        >>> Charset(("a", "b")).decode([0, 1, 1, 0, 1, 2, 2, 0])
        'aab'
        """
        previous = [BLANK, *classes]
        return "".join(
            self.characters[now - 1]
            for before, now in zip(previous, classes, strict=False)
            if now not in (before, BLANK)
        )


def steps_needed(classes: Sequence[int]) -> int:
    """Time steps that CTC needs for a text: one a character, and a blank between equal neighbours.

    >>> steps_needed([1, 1, 2])
    4
    """
    return len(classes) + sum(before == now for before, now in itertools.pairwise(classes))


def read_charset(path: Path, use_space: bool = True) -> Charset:
    """Read a charset file (UTF-8, with or without BOM, any line ends); `use_space` adds a space at the end.

    Raises:
        DataError: no such file, not UTF-8, no characters, or a line that is not one character.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
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
    # Not splitlines: U+2028 and its like are characters that a charset may hold.
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if lines == [""]:
        raise DataError(f"{path}: no characters. Expected a charset: one character a line.")
    for number, line in enumerate(lines, start=1):
        if len(line) != 1:
            shown = line if len(line) <= 40 else line[:37] + "..."
            raise DataError(
                f"{path}: line {number}: got {shown!r}. Expected one character a line; each line is one class. "
                "Use the charset file that the model was trained with."
            )
    return Charset((*lines, " ") if use_space else tuple(lines))


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
