"""The metric that processes score together, here threads with a team of their own."""

import threading
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest

from compress.graph import load_model
from compress.pipeline.evaluation import score_model
from compress.pipeline.shared_scoring import help_scoring, shared_metric
from compress.tasks.base import Task
from tests.pipeline import tiny


class Members:
    """Three members of a team, in threads."""

    def __init__(self) -> None:
        self.count = 3
        self.sent: list[Queue[Any]] = [Queue() for _ in range(3)]
        self.gathered: list[Queue[Any]] = [Queue() for _ in range(3)]

    def member(self, rank: int) -> Any:
        """A `Team` as far as scoring needs it."""

        def send(value: Any) -> None:
            for queue in self.sent[1:]:
                queue.put(value)

        def gather(value: Any) -> list[Any]:
            self.gathered[rank].put(value)
            return [queue.get(timeout=30) for queue in self.gathered] if rank == 0 else []

        receive = lambda: self.sent[rank].get(timeout=30)  # noqa: E731
        return SimpleNamespace(rank=rank, count=3, is_main=rank == 0, send=send, receive=receive, gather=gather)


class Unshared:
    """A task that does not say how to share a score."""

    kind = "mine"

    def __init__(self, task: Task) -> None:
        self.evaluate, self.check_model = task.evaluate, task.check_model


@pytest.mark.parametrize("shared", [True, False])
def test_the_metric_is_one_processs(tmp_path: Path, shared: bool) -> None:
    folder = tiny.write_inputs(tmp_path)
    model, given = load_model(folder / "model.onnx"), tiny.task(folder)
    given.eval_batch_size = 5  # type: ignore[attr-defined]
    task: Any = given if shared else Unshared(given)
    alone = score_model(model, given, 1).metric
    assert shared_metric(model, task, 1, None) == alone
    team = Members()
    helped: list[float] = []
    helpers = [
        threading.Thread(target=lambda rank=rank: helped.append(help_scoring(task, 1, team.member(rank))))
        for rank in (1, 2)
    ]
    for helper in helpers:
        helper.start()
    assert shared_metric(model, task, 1, team.member(0)) == alone
    for helper in helpers:
        helper.join()
    assert helped == [0.0, 0.0]
    assert all(queue.empty() for queue in (*team.sent, *team.gathered))
