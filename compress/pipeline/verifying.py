"""The whole content of a run's images, compared with what it was before: `compress run --verify`.

What tells that a stage is stale reads a large set's names and sizes and a sample of its images only, so that a run
starts in seconds. This reads every byte, keeps a digest of each image in the folder of results, and names what has
changed since.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from compress.artifacts import VAL, write_atomic
from compress.data.overlap import Stored, digest_of
from compress.errors import ArtifactError, DataError
from compress.pipeline.stage_progress import VERIFYING
from compress.pipeline.stages.scores import open_test_set
from compress.progress import Note, Progress
from compress.recipe import Recipe
from compress.tasks.base import Listed, Task

FILE = "images.jsonl"
"""In a run's folder: a line `[list, path, digest]` for each image."""
EVERY = 256
"""Images between two reports of progress."""
Digests = dict[tuple[str, str], str]
"""(list, path) -> digest in hexadecimal digits."""


def verify_images(recipe: Recipe, task: Task, on_progress: Progress | None = None, on_note: Note | None = None) -> None:
    """Read every image of a recipe's lists in full, and compare it with what is kept of it in the folder of results.

    What nothing is kept of, all images at first, is kept from now on. Of images that are in memory those bytes count
    that were decoded.

    Raises:
        DataError: an image has changed; the message names the first one.
        ArtifactError: what is kept cannot be read.
    """
    file = recipe.out / FILE
    lists = _image_lists(recipe, task)
    kept = _load(file) if file.exists() else {}
    found = _digests(lists, on_progress)
    for name, images in lists.items():
        _check_unchanged(name, len(images), file, kept, found)
    write_atomic(file, "".join(f"{json.dumps([*key, digest])}\n" for key, digest in found.items()).encode())
    if on_note:
        same = len(found.keys() & kept.keys())
        if kept and not same:
            on_note(f"Note: {file} holds {len(kept)} images, none of which is in the lists now: nothing was compared.")
        on_note(f"Verified: {same} images as {file} has them, {len(found) - same} noted there for the first time.")


def _image_lists(recipe: Recipe, task: Task) -> Mapping[str, Sequence[Stored]]:
    """The images of each list by its key in the recipe; none of tasks that do not tell."""
    lists = {f"data.{name}": images for name, images in _stored(task).items() if images}
    for name in recipe.data.test:
        lists[f"data.test.{name}"] = _stored(open_test_set(recipe, name)).get(VAL, ())
    return lists


def _stored(task: Task) -> Mapping[str, Sequence[Stored]]:
    return task.stored_images() if isinstance(task, Listed) else {}


def _digests(lists: Mapping[str, Sequence[Stored]], on_progress: Progress | None) -> Digests:
    total, done = sum(map(len, lists.values())), 0
    found: Digests = {}
    for name, images in lists.items():
        for image in images:
            key = (name, os.path.abspath(image.path))  # wherever the run was started
            if key not in found:  # a list may name an image several times
                found[key] = _digest(name, image)
            done += 1
            if on_progress and (done % EVERY == 0 or done == total):
                on_progress(done, total, VERIFYING)
    return found


def _digest(name: str, image: Stored) -> str:
    try:
        content = image.content()
    except OSError as error:
        raise DataError(f"{name}: {image.path}: cannot be read ({error.strerror}). Restore it.") from error
    if content == digest_of(b"") and image.size:  # a streamed list's, of which only a size is known
        raise DataError(f"{name}: {image.path}: cannot be read. Restore it.")
    return content.hex()


def _check_unchanged(name: str, images: int, file: Path, kept: Digests, found: Digests) -> None:
    """Raise DataError where an image of a list has another digest than before."""
    pairs = ((key, digest) for key, digest in found.items() if key[0] == name)
    changed = [path for (listed, path), digest in pairs if kept.get((listed, path), digest) != digest]
    if changed:
        raise DataError(
            f"{name}: {len(changed)} of {images} images changed since {file} noted them, the first is {changed[0]}. "
            "Restore them, or choose another --out folder to start anew with them as they are."
        )


def _load(file: Path) -> Digests:
    """
    Raises:
        ArtifactError: it is not what `verify_images` writes.
    """
    try:
        with file.open(encoding="utf-8") as lines:
            return {(name, path): digest for name, path, digest in _rows(lines)}
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{file}: damaged ({error}). Delete it: images are then noted anew.") from error


def _rows(lines: Iterable[str]) -> Iterable[tuple[str, str, str]]:
    return ((str(name), str(path), str(digest)) for name, path, digest in map(json.loads, lines))
