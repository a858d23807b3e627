"""A run that is killed outright, not asked to stop, goes on and ends with the same files as one that was left alone.

The random kills also run on any other recipe, which need not be small; -s shows where each of them hit:

    COMPRESS_KILL_RECIPE=recipes/demo_cls.yaml python -m pytest tests/pipeline/test_kill.py -m slow -k random -s -n 0

COMPRESS_KILLS is how many (10), COMPRESS_KILL_SEED another draw, COMPRESS_KILL_ARGS further arguments of the run, e.g.
"--set threads=1".
"""

import os
import random
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compress import artifacts
from compress.artifacts import Placement, PruningPlan, Report, Sensitivity
from compress.data.synthetic import write_dataset
from compress.graph import from_torch, save_model
from compress.pipeline.state import Record
from compress.zoo.classifier import build_classifier

SHAPE = (3, 48, 64)
FILES = ("sensitivity.json", "pruned.onnx", "finetuned.onnx", "int8.onnx")
RECIPE = """
version: 1
model: model.onnx
task: {kind: classification, input: [3, 48, 64], directions: true}
data: {train: train/labels.txt, val: val/labels.txt}
threads: 1
steps:
  - sensitivity: {ratios: [0.3, 0.6]}
  - prune: {target: {macs: 0.7}, align: 4}
  - finetune: {epochs: 3, batch_size: 16}
  - quantize: {epochs: 1, batch_size: 16, calibration: 16, optimize: size}
compare: {rounds: 3}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model, a few rendered crops and a recipe."""
    torch.manual_seed(0)
    save_model(from_torch(build_classifier(), torch.zeros(1, *SHAPE)), tmp_path / "model.onnx")
    write_dataset(tmp_path / "train", 40, 1)
    write_dataset(tmp_path / "val", 20, 2)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def start(recipe: Path, out: Path) -> "subprocess.Popen[bytes]":
    """A run of the recipe; what it says goes into a file beside `out`."""
    more = shlex.split(os.environ.get("COMPRESS_KILL_ARGS", ""))
    command = [sys.executable, "-m", "compress", "run", str(recipe), "--out", str(out), *more]
    with out.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def check_end(process: "subprocess.Popen[bytes]", out: Path) -> None:
    """It ended by itself: with a report, whether gates were met or missed."""
    assert process.returncode in (0, 1), out.with_suffix(".log").read_text()
    assert (out / "report.json").is_file(), out.with_suffix(".log").read_text()


def finish(recipe: Path, out: Path) -> float:
    """Run to the end; seconds of CPU time that took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = start(recipe, out)
    process.wait(timeout=7200)
    check_end(process, out)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ends_within(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Whether a process ends before it has used so much CPU time: on a busy machine, too, it gets as far."""
    clock = 1.0 / os.sysconf("SC_CLK_TCK")
    stat = Path(f"/proc/{process.pid}/stat")
    started = time.monotonic()
    while process.poll() is None:
        used = time.monotonic() - started  # where the system does not tell
        if stat.exists():
            used = clock * sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13]))  # utime and stime
        if used >= seconds:
            return False
        time.sleep(0.05)
    return True


def kill_when(recipe: Path, out: Path, ready: Callable[[], bool]) -> None:
    """Start the run and SIGKILL it as soon as `ready`."""
    process = start(recipe, out)
    deadline = time.monotonic() + 300
    while not ready():
        assert process.poll() is None, f"ended before it could be killed: {out.with_suffix('.log').read_text()}"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()


def kill_at_random(recipe: Path, folder: Path, kills: int, longest: float, rng: random.Random) -> list[Path]:
    """SIGKILL runs after up to `longest` seconds of CPU time, and go on each time; the folders of runs that ended."""
    outs = [folder / "killed0"]
    done = 0
    while done < kills:
        process = start(recipe, outs[-1])
        delay = rng.uniform(0.0, longest)
        if ends_within(process, delay):  # this one is through: the other kills hit another
            check_end(process, outs[-1])
            outs.append(folder / f"killed{len(outs)}")
            continue
        process.kill()
        process.wait()
        done += 1
        files = sorted(outs[-1].glob("*"), key=lambda path: path.stat().st_mtime) if outs[-1].exists() else []
        last = files[-1].name if files else "nothing yet"
        print(f"kill {done} after {delay:.1f} s of CPU time, {outs[-1].name}: last written {last}", flush=True)
    finish(recipe, outs[-1])
    return outs


def beside_times(path: Path) -> Any:
    """What must be the same in a file whenever it is made: all of it, save what time was measured or predicted."""
    if path.name == "plan.json":
        return replace(artifacts.load(PruningPlan, path), latency_before=None, latency_after=None, notes=())
    if path.name == "int8.placement.json":
        placement = artifacts.load(Placement, path)
        return placement.fingerprint, placement.float_values, placement.padding
    if path.name == "report.json":
        report = artifacts.load(Report, path)
        stages = [(stage.stage, stage.file, stage.cost, stage.score, stage.parity) for stage in report.stages]
        gates = [gate for gate in report.gates if not gate.name.startswith("speedup")]
        return stages, gates, report.plan, report.gallery, report.scan
    if path.suffix == ".json" and path.with_suffix(".onnx").exists():
        record = artifacts.load(Record, path)
        return record.fingerprint, record.content, record.parity
    if path.suffix in (".md", ".html"):
        return None  # report.json in words
    return path.read_bytes()


def files_of(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def untouched(recipe: Path, whole: Path, out: Path) -> Path:
    """The run that was left alone, with what was killed's choice of what runs in integers: times decide on that."""
    name = "int8.placement.json"
    if not (out / name).exists() or beside_times(out / name) == beside_times(whole / name):
        return whole
    again = out.with_name(f"{whole.name}_{out.name}")
    shutil.copytree(whole, again, ignore=shutil.ignore_patterns("int8.*"))
    shutil.copy(out / name, again / name)
    finish(recipe, again)
    return again


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_files(folder: Path) -> None:
    recipe, whole, killed = folder / "recipe.yaml", folder / "whole", folder / "killed"
    finish(recipe, whole)

    scan = killed / "sensitivity.json"
    kill_when(recipe, killed, lambda: scan.exists() and scan.read_text().count('"0.3"') >= 5)
    cells = scan.read_text()
    assert not (killed / "pruned.onnx").exists()
    kill_when(recipe, killed, (killed / "finetuned.checkpoint").exists)
    assert scan.read_text() != cells
    assert not (killed / "finetuned.onnx").exists()
    finish(recipe, killed)

    assert set(FILES) <= set(files_of(whole))
    assert files_of(killed) == files_of(whole)
    for name in files_of(killed):
        assert beside_times(killed / name) == beside_times(whole / name), name


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_files(folder: Path) -> None:
    """Ten SIGKILLs; the run goes on after each, and another one starts where it came to its end before."""
    recipe = Path(os.environ.get("COMPRESS_KILL_RECIPE", folder / "recipe.yaml"))
    kills, seed = int(os.environ.get("COMPRESS_KILLS", "10")), int(os.environ.get("COMPRESS_KILL_SEED", "0"))
    whole = folder / "whole"
    seconds = finish(recipe, whole)
    fewest = finish(recipe, whole)  # all is there: it starts, measures and reports
    longest = fewest + max(0.0, seconds - fewest) / 4
    print(f"CPU time in one go {seconds:.0f} s; with everything there {fewest:.0f} s", flush=True)

    outs = kill_at_random(recipe, folder, kills, longest, random.Random(seed))
    for out in outs:
        reference = untouched(recipe, whole, out)
        assert files_of(out) == files_of(reference)
        for name in files_of(out):
            assert beside_times(out / name) == beside_times(reference / name), f"{out}: {name}"
    print(f"{kills} kills, {len(outs)} runs: the same {len(files_of(whole))} files each, {', '.join(files_of(whole))}")


@pytest.mark.slow
def test_two_runs_on_one_folder(folder: Path) -> None:
    """The second is told of the first and touches nothing; killed, the first is in nobody's way."""
    recipe, out = folder / "recipe.yaml", folder / "out"
    first = start(recipe, out)
    while not (out / "sensitivity.json").exists():
        assert first.poll() is None
        time.sleep(0.01)
    command = [sys.executable, "-m", "compress", "run", str(recipe), "--out", str(out)]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    first.kill()
    first.wait()
    assert second.returncode == 2
    assert f"Error: {out}: in use by process {first.pid} on " in second.stderr
    assert f"run {recipe} --out {out}. Wait until that has ended" in second.stderr
    cells = artifacts.load(Sensitivity, out / "sensitivity.json")
    assert cells.curves
    finish(recipe, out)
