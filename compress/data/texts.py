"""Random texts as word crops show them: words, made-up words, numbers, prices, dates, codes."""

import string
from collections.abc import Callable
from functools import cache
from importlib import resources

import numpy as np

_REVERSIBLE = frozenset("oOxXsSzZ08HINnuldpbqlWMw69-.:|%/")
"""Characters that are characters again when turned by 180 degrees (n is u, d is p, M is W)."""
_CONSONANTS = "bcdfghjklmnpqrstvwxyz"
_VOWELS = "aeiou"


def is_reversible(text: str) -> bool:
    """Whether the text turned by 180 degrees still reads as a text, so that its direction cannot be determined.

    >>> is_reversible("NOON"), is_reversible("90"), is_reversible("Exit")
    (True, True, False)
    """
    return all(letter in _REVERSIBLE for letter in text)


def random_text(rng: np.random.Generator, *, directed: bool = True) -> str:
    """Make a text of printable ASCII without spaces, 1 to about 16 characters.

    Args:
        rng: source of all choices.
        directed: leave out texts that read upside down as well (see `is_reversible`).
    """
    while True:
        text = _with_marks(_MAKERS[_weighted(_SHARES, rng)](rng), rng)
        if not (directed and is_reversible(text)):
            return text


@cache
def _words() -> tuple[str, ...]:
    """Ordinary words of signs, shops, packaging and forms, in lower case."""
    return tuple((resources.files("compress.data") / "words.txt").read_text(encoding="ascii").split())


def _ordinary_word(rng: np.random.Generator) -> str:
    return _words()[rng.integers(len(_words()))]


def _word(rng: np.random.Generator) -> str:
    return _with_case(_ordinary_word(rng), rng)


def _made_up_word(rng: np.random.Generator) -> str:
    """Syllables of consonant, vowel and sometimes a closing consonant."""
    syllables = []
    for _ in range(rng.integers(1, 5)):
        closing = _letter(_CONSONANTS, rng) if rng.random() < 0.4 else ""
        syllables.append(_letter(_CONSONANTS, rng) + _letter(_VOWELS, rng) + closing)
    return _with_case("".join(syllables), rng)


def _two_words(rng: np.random.Generator) -> str:
    joint = ("-", "&", "'", "/", ".", "@")[rng.integers(6)]
    second = "s" if joint == "'" else _ordinary_word(rng)[:6]
    return _with_case(_ordinary_word(rng)[:7] + joint + second, rng)


def _number(rng: np.random.Generator) -> str:
    return _digits(int(rng.integers(1, 8)), rng)


def _figure(rng: np.random.Generator) -> str:
    """A price, a share, a time, a date, a telephone number or an amount with its unit."""
    forms: tuple[Callable[[], str], ...] = (
        lambda: f"{'$' if rng.random() < 0.6 else ''}{rng.integers(1, 2000)}.{rng.integers(0, 100):02d}",
        lambda: f"{rng.integers(1, 101)}%",
        lambda: f"{rng.integers(0, 24):02d}:{rng.integers(0, 60):02d}",
        lambda: f"{rng.integers(1, 29):02d}/{rng.integers(1, 13):02d}/{rng.integers(1950, 2040)}",
        lambda: f"{_digits(3, rng)}-{_digits(4, rng)}",
        lambda: f"{rng.integers(1, 1000)}{('kg', 'ml', 'cm', 'km', 'g', 'L', 'W', 'am', 'pm')[rng.integers(9)]}",
    )
    return forms[rng.integers(len(forms))]()


def _code(rng: np.random.Generator) -> str:
    letters = string.ascii_uppercase + string.digits
    return "".join(_letter(letters, rng) for _ in range(rng.integers(2, 9)))


def _any_characters(rng: np.random.Generator) -> str:
    """Every printable character turns up, also those that words never have."""
    letters = string.ascii_letters + string.digits + string.punctuation
    return "".join(_letter(letters, rng) for _ in range(rng.integers(1, 8)))


_MAKERS = (_word, _made_up_word, _two_words, _number, _figure, _code, _any_characters)
_SHARES = (0.54, 0.14, 0.05, 0.07, 0.08, 0.07, 0.05)


def _with_case(word: str, rng: np.random.Generator) -> str:
    return (word.upper(), word.capitalize(), word)[_weighted((0.45, 0.3, 0.25), rng)]


def _with_marks(text: str, rng: np.random.Generator) -> str:
    """Put a mark at the end of one text in twelve, and quotes or brackets around one in fifty."""
    chance = rng.random()
    if chance < 0.08:
        return text + ".,!?:;"[rng.integers(6)]
    if chance < 0.1:
        left, right = ('""', "()", "''", "[]")[rng.integers(4)]
        return left + text + right
    return text


def _digits(count: int, rng: np.random.Generator) -> str:
    return "".join(_letter(string.digits, rng) for _ in range(count))


def _letter(letters: str, rng: np.random.Generator) -> str:
    return letters[rng.integers(len(letters))]


def _weighted(shares: tuple[float, ...], rng: np.random.Generator) -> int:
    return int(np.searchsorted(np.cumsum(shares), rng.random() * sum(shares)))
