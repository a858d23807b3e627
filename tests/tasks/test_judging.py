"""Boxes in processes: the same results in the same order, clear errors, no torch, and no process left behind."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from compress.data.regions import Region
from compress.errors import CompressError
from compress.tasks.db_boxes import BoxSettings
from compress.tasks.judging import Judges, SceneMap


def scene(index: int) -> SceneMap:
    """A map of some boxes, of which the label knows one."""
    rng = np.random.default_rng(index)
    probability = np.zeros((96, 128), np.float32)
    points = []
    for _ in range(index % 4):
        left, top = rng.integers(5, 80, 2)
        cv2.rectangle(probability, (int(left), int(top)), (int(left) + 30, int(top) + 12), 1.0, -1)
        points.append(np.array([[left, top], [left + 30, top], [left + 30, top + 12], [left, top + 12]], np.float32))
    return SceneMap(index, f"{index}.png", probability, 96, 128, tuple(Region(p, "a") for p in points[:1]))


def wrong(index: int) -> SceneMap:
    """With a region that is none."""
    return dataclasses.replace(scene(index), regions=(None,))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def judges() -> Judges:
    return Judges(2, BoxSettings())


def results(judges: Judges, maps: list[SceneMap]) -> list[tuple]:
    return [(found.index, boxes.tolist(), matches) for found, boxes, matches in judges.judge(maps)]


def test_processes_give_the_same_results_in_the_same_order(judges: Judges):
    maps = [scene(index) for index in range(9)]
    here = results(Judges(0, BoxSettings()), maps)
    assert [index for index, _, _ in here] == list(range(9))
    assert any(boxes for _, boxes, _ in here)
    assert results(judges, maps) == here


def test_no_more_maps_are_made_ahead_than_there_are_processes(judges: Judges):
    made = []

    def maps() -> Iterator[SceneMap]:
        for index in range(6):
            made.append(index)
            yield scene(index)

    for number, _ in enumerate(judges.judge(maps())):
        assert len(made) <= number + 1 + judges.processes


def test_settings_reach_the_processes():
    faint = dataclasses.replace(scene(3), probability=scene(3).probability * np.float32(0.7))
    found = [
        len(boxes)
        for limit in (0.6, 0.8)
        for _, boxes, _ in results(Judges(1, BoxSettings(box_threshold=limit)), [faint])
    ]
    assert found[0] > 0
    assert found[1] == 0


def test_an_error_in_a_process_names_its_image_and_the_processes_go_on(judges: Judges):
    with pytest.raises(CompressError, match=r"4.png: its boxes could not be computed in a process \(.*--debug shows"):
        results(judges, [scene(3), wrong(4), scene(5)])
    assert len(results(judges, [scene(3)])) == 1


def test_an_error_while_maps_are_made_is_that_error(judges: Judges):
    def maps() -> Iterator[SceneMap]:
        yield scene(1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(judges.judge(maps()))


def test_a_process_that_is_killed_is_one_clear_error_and_the_next_call_starts_others():
    judges = Judges(1, BoxSettings())
    results(judges, [scene(1)])
    assert judges._pool is not None
    (process,) = judges._pool._processes.values()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with pytest.raises(CompressError, match=r"processes: one of 1 that compute boxes ended by itself\. Use fewer or 0"):
        results(judges, [scene(1)])
    assert len(results(judges, [scene(1)])) == 1


def test_less_than_no_process():
    with pytest.raises(CompressError, match=r"processes: got -1. Must be 0 \(none\) or more"):
        Judges(-1, BoxSettings())


def test_neither_this_module_nor_what_it_needs_imports_torch():
    code = "import sys, compress.tasks.judging; sys.exit('torch' in sys.modules or 'onnxruntime' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- ends ---------------------------------------------------------------------------------------------------------

PROGRAM = """
import os, sys, time
from compress.tasks.judging import Judges
from tests.tasks.test_judging import scene

if __name__ == "__main__":
    from compress.tasks.db_boxes import BoxSettings
    judges = Judges(2, BoxSettings())
    list(judges.judge([scene(index) for index in range(4)]))
    print(*judges._pool._processes, flush=True)
    {then}
"""


def _heed_ctrl_c() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would all that these tests start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def started(folder: Path, then: str) -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    """A program that has processes, and their ids."""
    (folder / "program.py").write_text(textwrap.dedent(PROGRAM.format(then=then)))
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, str(folder / "program.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        start_new_session=True,
        preexec_fn=_heed_ctrl_c,
    ) as program:
        assert program.stdout is not None
        try:
            yield program, [int(number) for number in program.stdout.readline().split()]
        finally:
            program.kill()


def all_gone(processes: list[int], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(Path(f"/proc/{number}").exists() for number in processes):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("then", "stop", "code"),
    [
        ("sys.exit(3)", None, 3),
        pytest.param("del judges; sys.exit(3)", None, 3, marks=pytest.mark.slow),
        pytest.param("list(judges.judge(iter([scene(1), 1 / 0])))", None, 1, marks=pytest.mark.slow),
        ("time.sleep(60)", signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_the_processes_end_with_the_program(tmp_path: Path, then: str, stop: int | None, code: int):
    with started(tmp_path, then) as (program, processes):
        assert 1 <= len(processes) <= 2
        if stop is not None:
            os.kill(program.pid, stop)
        _, said = program.communicate(timeout=30)
        assert program.returncode == code
        assert said.count("Traceback") == (code == 1)
        assert all_gone(processes)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_the_processes_end_with_their_task(tmp_path: Path):
    """The program goes on."""
    with started(tmp_path, "del judges; time.sleep(60)") as (program, processes):
        assert all_gone(processes)
        assert program.poll() is None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_ctrl_c_ends_all_of_them_and_only_the_program_speaks(tmp_path: Path):
    """Ctrl-C reaches the whole group of processes."""
    with started(tmp_path, "time.sleep(60)") as (program, processes):
        os.killpg(program.pid, signal.SIGINT)
        _, said = program.communicate(timeout=30)
        assert said.count("KeyboardInterrupt") == 1
        assert "multiprocessing" not in said
        assert all_gone(processes)


def test_a_script_without_a_guard_is_told(tmp_path: Path):
    code = """
    from compress.tasks.db_boxes import BoxSettings
    from compress.tasks.judging import Judges
    from tests.tasks.test_judging import scene
    list(Judges(1, BoxSettings()).judge([scene(1)]))
    """
    (tmp_path / "bare.py").write_text(textwrap.dedent(code))
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, str(tmp_path / "bare.py")],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[-1].endswith('needs `if __name__ == "__main__":` around what it does.')
