"""What studies of a recipe's network start from."""

import onnx

from compress.pipeline import open_model
from compress.pipeline.tasks import recipe_task
from compress.recipe import Recipe
from compress.tasks.base import Task


def model_and_task(recipe: Recipe) -> tuple[onnx.ModelProto, Task]:
    """The canonical model and the task, without `data.unlabelled`, which no scan reads."""
    labelled = recipe.model_copy(update={"data": recipe.data.model_copy(update={"unlabelled": ()})})
    task = recipe_task(labelled)
    return open_model(recipe.model, recipe.weights, task.input_shape), task
