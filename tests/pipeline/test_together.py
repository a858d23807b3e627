"""Processes that share a run: the scan of a single one, training on its batches, and a kill that costs little."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from compress import artifacts
from compress.artifacts import Report, Sensitivity
from compress.compute.processes import Turns
from compress.errors import ArtifactError, ProcessError, TrainingError
from compress.pipeline.evaluation import default_threads
from compress.pipeline.run import run_recipe
from compress.pipeline.scanning.parts import join_parts, part_file
from compress.pipeline.stages.fitting import shared_task
from compress.pipeline.together import join_run
from compress.tasks.loading import share_of
from tests.pipeline import tiny

ROOT = Path(__file__).parents[2]
STEPS: dict[str, dict[str, Any]] = {
    "sensitivity": {"criterion": "obs", "measure": "divergence", "images": 64},
    "prune": {"target": {"macs": 0.7}, "align": 4},
    "finetune": {"epochs": 4, "batch_size": 7, "lr": 0.01, "average": 4, "features": 0.5},
    "quantize": {"epochs": 2, "batch_size": 7, "calibration": 8, "optimize": "size"},
}


# --- shares -----------------------------------------------------------------------------------------------------------


def test_shares_of_a_batch_are_the_batch() -> None:
    batch = np.arange(10, 17)
    shares = [share_of(batch, (rank, 3)) for rank in range(3)]
    assert sorted(np.concatenate(shares)) == batch.tolist()
    assert [len(share) for share in shares] == [3, 2, 2]
    assert share_of(batch, (0, 1)).tolist() == batch.tolist()
    with pytest.raises(TrainingError, match=r"torchrun: 8 processes share a batch of 7 images. Use at most 7"):
        share_of(batch, (7, 8))


def test_tasks_give_each_process_its_images(tmp_path: Path) -> None:
    task = tiny.task(tiny.write_inputs(tmp_path))
    whole = next(iter(task.train_batches(epoch=1, batch_size=7, seed=0)))
    parts = []
    for rank in range(2):
        mine = shared_task(task, SimpleNamespace(rank=rank, count=2))  # type: ignore[arg-type]
        parts.append(next(iter(mine.train_batches(epoch=1, batch_size=7, seed=0))))
        assert mine.train_steps(7) == task.train_steps(7)
    assert torch.equal(parts[0].images, whole.images[::2])
    assert torch.equal(parts[1].targets, whole.targets[1::2])


def test_a_task_that_cannot_be_shared() -> None:
    team: Any = SimpleNamespace(rank=0, count=2)
    with pytest.raises(ProcessError, match=r"torchrun: the task 'mine' has no `share` of its batches"):
        shared_task(SimpleNamespace(kind="mine"), team)  # type: ignore[arg-type]


def test_each_piece_is_somebodys() -> None:
    store = dist.HashStore()
    turns = [Turns(store, "scan") for _ in range(3)]
    order = [0, 0, 1, 2, 1, 0, 2, 2]  # who asks next; each goes through the list
    places = [iter(range(20)) for _ in turns]
    taken: dict[int, int] = {}

    def go_on(worker: int) -> None:
        for place in places[worker]:
            if turns[worker].is_mine(place):
                assert place not in taken
                taken[place] = worker
                return

    for worker in [*order, *[0, 1, 2] * 10]:
        go_on(worker)
    assert sorted(taken) == list(range(20))
    assert set(taken.values()) == {0, 1, 2}


def test_threads_are_shared_by_the_processes_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = default_threads()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert default_threads() == max(1, alone // 2)


def test_one_process_has_nobody_to_join(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"join_run: there is one process. Start several with torchrun"):
        join_run(tiny.recipe(tiny.write_inputs(tmp_path)))


def test_other_commands_are_not_shared() -> None:
    environment = {**os.environ, "WORLD_SIZE": "2", "RANK": "0"}
    shown = subprocess.run(
        [sys.executable, "-m", "compress", "inspect", "model.onnx"], capture_output=True, text=True, env=environment
    )
    assert shown.returncode == 2
    assert shown.stderr.startswith("Error: torchrun: 2 processes were started, and only `compress run` shares its work")


# --- parts of a scan --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole scan."""
    inputs = tiny.write_inputs(tmp_path_factory.mktemp("scanned"))
    run_recipe(tiny.recipe(inputs, steps={name: STEPS[name] for name in ("sensitivity", "prune")}), "")
    return inputs / "out"


def _only(scan: Sensitivity, cells: Callable[[int, int], bool]) -> Sensitivity:
    """A scan with some of its cells, by group and ratio."""
    curves = {
        name: replace(curve, metric={key: curve.metric[key] for n, key in enumerate(curve.metric) if cells(place, n)})
        for place, (name, curve) in enumerate(scan.curves.items())
    }
    return replace(scan, curves=curves)


@pytest.mark.parametrize("has_main", [True, False])
def test_joined_parts_are_the_whole_scan(scanned: Path, has_main: bool, tmp_path: Path) -> None:
    whole = artifacts.load(Sensitivity, scanned / "sensitivity.json")
    path = tmp_path / "sensitivity.json"
    kept: Sequence[Callable[[int, int], bool]] = (
        lambda place, n: place == 0,
        lambda place, n: place == 1 or (place == 2 and n > 4),
        lambda place, n: place == 2 and n <= 4,
    )
    for rank, cells in enumerate(kept):
        if rank or has_main:
            artifacts.save(_only(whole, cells), part_file(path, rank))
    if not has_main:
        artifacts.save(_only(whole, kept[0]), part_file(path, 3))
    join_parts(path, whole.fingerprint)
    assert path.read_bytes() == (scanned / "sensitivity.json").read_bytes()
    assert not list(tmp_path.glob("*part*"))


def test_parts_of_another_scan_are_refused(scanned: Path, tmp_path: Path) -> None:
    path = tmp_path / "sensitivity.json"
    artifacts.save(artifacts.load(Sensitivity, scanned / "sensitivity.json"), part_file(path, 1))
    with pytest.raises(ArtifactError, match=r"sensitivity.part1.json: stale"):
        join_parts(path, "another")


# --- the real thing ---------------------------------------------------------------------------------------------------


LAUNCHER = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]


def started(*arguments: str) -> "subprocess.Popen[str]":
    """Python with these arguments and one thread; its output is shown by `finish`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def torchrun(folder: Path, out: str, *options: str) -> "subprocess.Popen[str]":
    run = ["-m", "compress", "run", str(folder / "recipe.yaml"), "--out", str(folder / out)]
    return started(*LAUNCHER, *options, *run)


def finish(process: "subprocess.Popen[str]", status: int = 0) -> str:
    shown, _ = process.communicate(timeout=900)
    assert process.returncode == status, shown
    return shown


def kill_second(process: "subprocess.Popen[str]", when: Callable[[], bool]) -> None:
    """SIGKILL the second process as soon as something is there."""
    while not when():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if b"\0RANK=1\0" in b"\0" + Path(f"/proc/{pid}/environ").read_bytes():
            os.kill(int(pid), signal.SIGKILL)


def metrics(folder: Path) -> dict[str, float]:
    return {stage.stage: stage.score.metric for stage in artifacts.load(Report, folder / "report.json").stages}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_two_processes_and_a_kill(tmp_path: Path) -> None:
    """The scan is one process's to the byte. Killed, the same command goes on; with restarts it does so by itself."""
    inputs = tiny.write_inputs(tmp_path, crops=40)
    run_recipe(tiny.recipe(inputs, "one", STEPS), "")
    finish(torchrun(inputs, "two"))
    assert (inputs / "two/sensitivity.json").read_bytes() == (inputs / "one/sensitivity.json").read_bytes()
    assert (inputs / "two/pruned.onnx").read_bytes() == (inputs / "one/pruned.onnx").read_bytes()
    assert not list((inputs / "two").glob("*part*"))

    out = inputs / "killed"
    process = torchrun(inputs, "killed")
    kill_second(process, lambda: any(out.glob("sensitivity.part1.json")))
    assert "SIGKILL" in finish(process, status=1)
    assert not (out / "pruned.onnx").exists()
    shutil.copytree(out, inputs / "alone")
    process = torchrun(inputs, "killed", "--max-restarts", "1")
    kill_second(process, (out / "finetuned.checkpoint").exists)
    finish(process)
    assert (out / "sensitivity.json").read_bytes() == (inputs / "one/sensitivity.json").read_bytes()
    run_recipe(tiny.recipe(inputs, "alone", STEPS), "")  # so does a single process
    assert (inputs / "alone/sensitivity.json").read_bytes() == (inputs / "one/sensitivity.json").read_bytes()
    assert (inputs / "alone/int8.onnx").read_bytes() == (inputs / "one/int8.onnx").read_bytes()
    assert metrics(out) == pytest.approx(metrics(inputs / "two"), abs=0.1)
    assert metrics(out) == pytest.approx(metrics(inputs / "one"), abs=0.1)  # 80 images


SCRIPT = """
import sys
import torch
from torch import nn
from compress.compute.processes import Team
from compress.train import FitSettings, Objective, TrainingData, fit
from dataclasses import dataclass

@dataclass(frozen=True)
class Batch:
    images: torch.Tensor
    targets: torch.Tensor

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2))
        self.unused = nn.Linear(2, 2)
    def forward(self, x):
        return self.body(x)

team = Team.join(torch.device("cpu"))
rank, count = (team.rank, team.count) if team else (0, 1)
torch.manual_seed(rank)  # the first one's weights count
module = Net()
def batches(epoch):
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(5):
        images, targets = torch.randn(7, 3, 6, 6, generator=generator), torch.randint(0, 2, (7,), generator=generator)
        yield Batch(images[rank::count], targets[rank::count])
objective = Objective(lambda outputs, batch: nn.functional.cross_entropy(outputs, batch.targets), lambda _: 0.0)
settings = FitSettings(epochs=3, lr=0.01, weight_decay=0.01, freeze_batch_norm=sys.argv[2] == "frozen",
    keep_best=False, average=3, optimizer="sgd")
result = fit(module, TrainingData(batches, 5), objective, settings, team=team)
torch.save(module.state_dict(), f"{sys.argv[1]}.{count}.{rank}")
if team:
    team.wait()  # else one that ends early closes connections that the other still reads
    team.leave()
"""


@pytest.mark.slow
@pytest.mark.parametrize("statistics", ["frozen", "live"])
def test_training_is_one_processs(statistics: str, tmp_path: Path) -> None:
    """Uneven shares, a start that only the first process knows, and a layer that is not trained."""
    (tmp_path / "train.py").write_text(SCRIPT)
    for launcher in ([], LAUNCHER):
        finish(started(*launcher, str(tmp_path / "train.py"), str(tmp_path / "weights"), statistics))
    one, two, other = (torch.load(tmp_path / f"weights.{name}") for name in ("1.0", "2.0", "2.1"))
    assert all(torch.equal(two[name], value) for name, value in other.items())
    if statistics == "frozen":
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-6)
    else:  # each share is normalised by itself
        apart = {name: float((two[name] - value).abs().max()) for name, value in one.items()}
        assert 0 < apart["body.1.running_mean"] < 0.1
    assert torch.equal(two["unused.weight"], one["unused.weight"])


SCORING = """
import json
import sys
from pathlib import Path
import torch
from compress.compute.processes import Team
from compress.graph import load_model, to_onnx
from compress.pipeline.evaluation import score_model
from compress.pipeline.execution import Execution
from compress.pipeline.models import as_graph_module
from compress.pipeline.shared_scoring import shared_metric
from compress.pipeline.stages.fitting import objective_of, train, trainable
from compress.recipe import FinetuneStep
from tests.pipeline import tiny

folder, epochs = Path(sys.argv[1]), int(sys.argv[2])
team, task, model = Team.join(torch.device("cpu")), tiny.task(folder), load_model(folder / "model.onnx")
task.eval_batch_size = 5
alone = []
def evaluate(trained):
    file = to_onnx(as_graph_module(trained), model)
    alone.append(score_model(file, task, 1).metric)
    return shared_metric(file, task, 1, team)
step = FinetuneStep(epochs=epochs, batch_size=6, lr=0.01, distill=0.0)
result = train(trainable(model, task, 1), task, step, objective_of(task, step, evaluate, None), identity="one",
    execution=Execution(threads=1, team=team, checkpoint=folder / "checkpoint"))
if team.is_main:
    (folder / f"scores{epochs}.json").write_text(json.dumps([result.history, alone]))
team.wait()
team.leave()
"""


@pytest.mark.slow
def test_scores_are_shared_and_one_processs_also_from_a_checkpoint(tmp_path: Path) -> None:
    """The second time the first process alone has a checkpoint, so that nobody scores the start again."""
    inputs = tiny.write_inputs(tmp_path)
    (tmp_path / "score.py").write_text(SCORING)
    found = []
    for epochs in (1, 3):
        finish(started(*LAUNCHER, str(tmp_path / "score.py"), str(inputs), str(epochs)))
        found.append(json.loads((inputs / f"scores{epochs}.json").read_text()))
    (first, scored), (both, more) = found
    assert first == scored
    assert (len(first), len(both), len(more)) == (2, 4, 2)
    assert both == first + more
