"""A run that several processes share: what all but the first one do.

The first process runs the recipe as it would alone. Before it scans or trains it sends the others a `Job`, and they
join in; meanwhile they wait. They open model and data by themselves, so these, and the folder of results, must be where
they are on every machine.
"""

from compress.compute.processes import Team
from compress.errors import ProcessError
from compress.pipeline.evaluation import default_threads
from compress.pipeline.labelling import label_unlabelled
from compress.pipeline.models import open_model
from compress.pipeline.run import recipe_device
from compress.pipeline.state import Run
from compress.pipeline.tasks import recipe_task
from compress.recipe import Recipe


def join_run(recipe: Recipe) -> None:
    """Take this process's share of a run, until the first process has no more to share.

    Raises:
        ProcessError: the first process is gone, or there are no others.
        CompressError: what the first one says, too.
    """
    device = recipe_device(recipe)
    team = Team.join(device)
    if team is None:
        raise ProcessError("join_run: there is one process. Start several with torchrun.")
    recipe = team.receive()  # with the label lists that the first process made
    task = recipe_task(recipe)
    original = open_model(recipe.model, recipe.weights, task.input_shape)
    threads = recipe.threads or default_threads()
    taught = label_unlabelled(task, original, threads=threads)
    run = Run(recipe, taught, original, original, threads, None, device=device, team=team)
    while (job := team.receive()) is not None:
        job.join(run, task)
    team.leave()
