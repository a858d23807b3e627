"""Pictures of single validation images: of one model, or of a run's original beside its result."""

from collections.abc import Mapping
from pathlib import Path

import onnx

from compress import artifacts
from compress.artifacts import Gallery
from compress.errors import CompressError
from compress.pipeline.evaluation import examine_model
from compress.report import GALLERY_FILE, write_gallery_page
from compress.report.pictures import write_gallery
from compress.tasks.base import Examination, Examiner, Task

NOT_SHOWN = "pictures are left out: the task has no `examine` and `picture` (see compress.tasks.base.Examiner)"


def score_with_pictures(
    model: Path | bytes | onnx.ModelProto,
    task: Task,
    folder: Path,
    *,
    name: str,
    count: int,
    threads: int | None = None,
) -> tuple[Examination, Gallery | None]:
    """Score a model, and write its worst cases with a page, index.html, into a folder; one pass over the images.

    Args:
        model: any kind of model, in float or int8.
        task: what scores it; one that tells nothing of single images has no gallery.
        folder: where the pictures go; those of an earlier call are replaced.
        name: the model's, as the page calls it.
        count: at most so many images.
        threads: CPU threads; default every core.

    Raises:
        OutputError: the folder cannot be written; found out before the model is run.
    """
    if not isinstance(task, Examiner):
        return examine_model(model, task, threads), None
    previous = _earlier_gallery(folder)
    artifacts.check_writable(folder, "--images-out")
    examination = examine_model(model, task, threads)
    gallery = make_gallery(task, {name: examination}, folder, count, previous=previous)
    write_gallery_page(gallery, folder, f"{task.metric_name} {examination.score.metric:.4f}: {name}")
    return examination, gallery


def make_gallery(
    task: Examiner,
    examined: Mapping[str, Examination],
    folder: Path,
    count: int,
    *,
    subfolder: str = "",
    previous: Gallery | None = None,
) -> Gallery:
    """Write the worst cases of the last model (see `compress.report.pictures.write_gallery`)."""
    return write_gallery(
        folder,
        {name: examination.cases for name, examination in examined.items()},
        task.picture,
        count=count,
        error_name=task.error_name,
        subfolder=subfolder,
        previous=previous,
    )


def _earlier_gallery(folder: Path) -> Gallery | None:
    """What an earlier call left there.

    Raises:
        CompressError: the folder holds other things, which pictures would be mixed up with.
        ArtifactError: what it says of earlier pictures is damaged.
    """
    if (folder / GALLERY_FILE).is_file():
        return artifacts.load(Gallery, folder / GALLERY_FILE)
    if folder.is_dir() and any(folder.iterdir()):
        raise CompressError(
            f"--images-out: {folder} holds other files. Give an empty or a new folder, or one of earlier pictures."
        )
    return None
