"""How long work tells what it does: steps done of all, and lines of text."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""(steps done, steps in all, what is done) -> nothing; called often."""
Note = Callable[[str], None]
"""One line that the user is to know on the way."""


def prefixed(prefix: str, on_progress: Progress | None) -> Progress | None:
    """The same with `prefix` before each message.

    >>> told = []
    >>> prefixed("step 2 of 3: ", lambda done, total, message: told.append(message))(1, 9, "epoch 1")
    >>> told
    ['step 2 of 3: epoch 1']
    """
    if on_progress is None:
        return None
    return lambda done, total, message: on_progress(done, total, prefix + message)
