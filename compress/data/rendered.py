"""Write rendered images and what is on them as a folder with a PaddleOCR label list."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from compress.artifacts import write_atomic
from compress.errors import OutputError, advice_to_write


def write_rendered(
    folder: Path,
    count: int,
    seed: int,
    *,
    render: Callable[[np.random.Generator], tuple[bytes, str]],
    suffix: str,
    on_progress: Callable[[int, int, str], None] | None = None,
    verb: str = "rendering",
) -> Path:
    """Write `count` images and `labels.txt` into a folder; return the label list's path.

    Image i depends on (seed, i) alone. The list is written last: where it exists, the set is whole.

    Args:
        folder: made if it is not there.
        count: number of images.
        seed: of all images.
        render: generator -> an image file's bytes and its label.
        suffix: of the image files, with the dot.
        on_progress: called as (done, total, message).
        verb: of the message.

    Raises:
        OutputError: the folder cannot be written.
    """
    lines = []
    _make_folder(folder / "images")
    for index in range(count):
        data, label = render(np.random.default_rng([seed, index]))
        name = f"images/{index:06d}{suffix}"
        (folder / name).write_bytes(data)
        lines.append(f"{name}\t{label}\n")
        if on_progress is not None:
            on_progress(index + 1, count, f"{verb} into {folder}")
    write_atomic(folder / "labels.txt", "".join(lines).encode())
    return folder / "labels.txt"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        advice = advice_to_write(error, "Choose a folder you may write to.")
        raise OutputError(f"{folder}: cannot be made ({error.strerror}). {advice}") from error
