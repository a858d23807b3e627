"""How long work tells what it does: steps done of all, and lines of text with counts in words."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""(steps done, steps in all, what is done) -> nothing; called often."""
Note = Callable[[str], None]
"""One line that the user is to know on the way."""


def count_of(number: int, what: str) -> str:
    """A number of things, in words.

    >>> count_of(1, "epoch"), count_of(2, "epoch"), count_of(0, "input")
    ('1 epoch', '2 epochs', '0 inputs')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def be(count: int) -> str:
    """The verb of "1 of 9 images is missing".

    >>> be(1), be(2), be(0)
    ('is', 'are', 'are')
    """
    return "is" if count == 1 else "are"


def them(count: int) -> str:
    """What to remove of so many things.

    >>> them(1), them(2)
    ('it', 'them')
    """
    return "it" if count == 1 else "them"
