"""The metric of a network in training, scored by all processes that train it, each on its share of the images.

The first process sends the file that it would score alone; images are fed in the same batches. So the metric is that of
one process, to the last bit, where threads do not change what onnxruntime computes.
"""

import onnx

from compress.compute.processes import Team
from compress.pipeline.evaluation import checked_session, score_model
from compress.tasks.base import SharedScoring, Task


def shared_metric(model: onnx.ModelProto, task: Task, threads: int | None, team: Team | None) -> float:
    """The metric of a model on all validation images; of a team's processes the others must call `help_scoring`.

    Raises:
        ModelError: onnxruntime rejects it.
        DataError: its output does not fit the task.
    """
    if team is None or not isinstance(task, SharedScoring):
        return score_model(model, task, threads).metric
    session = checked_session(model, task, threads)
    team.send(model.SerializeToString())
    shares = team.gather(task.judge_share(session.run, share=(team.rank, team.count)))
    return task.combine({place: said for share in shares for place, said in share.items()}).score.metric


def help_scoring(task: Task, threads: int | None, team: Team) -> float:
    """Take this process's share of the first one's `shared_metric`; 0, as the metric is known there alone."""
    if isinstance(task, SharedScoring):
        session = checked_session(team.receive(), task, threads)
        team.gather(task.judge_share(session.run, share=(team.rank, team.count)))
    return 0.0
