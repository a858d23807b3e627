"""The errors a user can cause, each one clear line: where, what, what is allowed, what to do."""

import errno
from pathlib import Path

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class CompressError(Exception):
    """A problem the user can fix; the command line prints it without a traceback and exits with 2."""


def reason(error: BaseException) -> str:
    """What another library's error says, on one line: its kind and the first line of its text.

    >>> reason(ValueError("axis 3\\nis out of range."))
    'ValueError: axis 3'
    """
    line = first_line(error)
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of an error's text that is not empty, without a full stop and not too long.

    >>> first_line(ValueError("\\n  axis 3 is out of range.\\nmore"))
    'axis 3 is out of range'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300].rstrip(".") if lines else ""


class ModelError(CompressError):
    """A model file is missing, empty, truncated, not ONNX, or not something we can work on."""


class InputSizeError(ModelError):
    """A PyTorch module does not run on images of the size that it is given."""


class UnsupportedOpError(ModelError):
    """A graph holds operators that cannot be imported; the message names every one of them at once.

    `nodes` says the same, a line for each: "node 'y' (GridSample): why".
    """

    def __init__(self, message: str, nodes: tuple[str, ...] = ()) -> None:
        """Take the message, and its parts."""
        super().__init__(message)
        self.nodes = nodes


class DataError(CompressError):
    """Labels or images are missing, unreadable or inconsistent."""


class RecipeError(CompressError):
    """A recipe has unknown keys or values out of range; the message lists all of them together."""


class ArtifactError(CompressError):
    """A stored artefact is damaged, of another version, or belongs to another model (stale)."""


class StaleError(ArtifactError):
    """A stored artefact was computed from something else than what is there now; `file` is the artefact."""

    def __init__(self, message: str, file: Path) -> None:
        """Take the message, and what it is about."""
        super().__init__(message)
        self.file = file


class OutputError(CompressError):
    """A result cannot be written where it was requested."""


class PlanError(CompressError):
    """A pruning request cannot be met, e.g. an alignment that would leave a layer empty."""


class TrainingError(CompressError):
    """Training cannot go on, e.g. the loss became NaN."""


class DeviceError(CompressError):
    """There is no such device, it lacks what was asked for, or its memory is not enough."""


class ProcessError(CompressError):
    """Another process of the same run is gone, or there are processes where only one can work."""


class ParityError(CompressError):
    """An exported file does not compute what the model it came from computes.

    `check` names the limit that was passed, `figure` what was measured (see `compress.export.parity`).
    """

    def __init__(self, message: str, check: str = "", figure: float = 0.0) -> None:
        """Take the message, and what was found."""
        super().__init__(message)
        self.check, self.figure = check, figure


def advice_to_write(error: OSError, otherwise: str) -> str:
    """What to do where something cannot be written: `otherwise`, unless there is no space left.

    >>> advice_to_write(OSError(errno.ENOSPC, "No space left on device"), "Choose another folder.")
    'Free some space there, or choose a folder on another disk.'
    """
    return "Free some space there, or choose a folder on another disk." if error.errno in _NO_SPACE else otherwise


def killed_worker(error: BaseException) -> str:
    """What to tell the user where a process that makes batches was killed; empty where it is another error.

    PyTorch raises it by a signal, wherever the main thread is just then.
    """
    if not isinstance(error, RuntimeError) or "DataLoader worker" not in str(error):
        return ""
    return (
        "workers: one of them was killed. Memory or /dev/shm may be too small (a container's is 64 MB, and batches "
        "pass through it). Use fewer workers, or 0."
    )
