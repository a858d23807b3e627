"""How long work tells what it does: steps done of all, and lines of text."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""(steps done, steps in all, what is done) -> nothing; called often."""
Note = Callable[[str], None]
"""One line that the user is to know on the way."""
