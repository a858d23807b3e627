"""Labels for images that have none: what the original model says of them."""

import onnx

from compress.measure.runtime import Session
from compress.pipeline.inputs import default_threads
from compress.pipeline.stages import Progress, model_identity
from compress.tasks.base import Task, Unlabelled


def label_unlabelled(
    task: Task, original: onnx.ModelProto, *, threads: int | None = None, on_progress: Progress | None = None
) -> Task:
    """The task with its images without labels labelled by the original model; as it is where it has none of them.

    Do so once, with the original, for all training stages: a fine-tuned teacher has forgotten what these images are to
    keep.

    Raises:
        DataError: the model does not fit the task, or says nothing of any image.
    """
    if not isinstance(task, Unlabelled):
        return task
    session = Session(original, threads=threads or default_threads(), spin=False)
    task.check_model(session.output_shape)
    return task.label_unlabelled(session.run, model_identity(original), on_progress)
