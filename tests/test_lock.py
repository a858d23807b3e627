"""One writer at a time: the second is told who the first is, and a killed one is in nobody's way."""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from compress.artifacts import lock, write_atomic
from compress.errors import OutputError

HOLD = """
import sys
from pathlib import Path
from compress.artifacts import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by_another(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds a result until the block ends, or it is killed."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.communicate()


def test_the_other_process_is_named(tmp_path: Path) -> None:
    with held_by_another(tmp_path / "f.onnx") as process:
        words = (
            rf"f\.onnx: in use by process {process.pid} on .+, since \d+-\d\d-\d\d .* UTC: -c .*f\.onnx'?\. Wait unt"
        )
        with pytest.raises(OutputError, match=words), lock(tmp_path / "f.onnx"):
            pytest.fail("held twice")
        with lock(tmp_path / "g.onnx"):  # another result
            pass
    with lock(tmp_path / "f.onnx"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_taken_over(tmp_path: Path) -> None:
    """The lock, and its half-written files; those of others stay."""
    with held_by_another(tmp_path) as process:
        process.kill()
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == process.pid
    (tmp_path / "images").mkdir()
    mine, other = (f".a.onnx.{number}-x8d7.partial" for number in (process.pid, process.pid + 1))
    for name in (mine, other, f"images/{mine}"):
        (tmp_path / name).write_bytes(b"half")
    with lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert {path.name for path in tmp_path.rglob("*")} == {"images", other}


def test_of_a_file_only_its_own_half_written_files_are_removed(tmp_path: Path) -> None:
    """Others in the folder may be of another writer, with the same number on another machine."""
    (tmp_path / "f[1].onnx").write_bytes(b"")
    with held_by_another(tmp_path / "f[1].onnx") as process:
        process.kill()
    names = [f".{name}.{process.pid}-x8d7.partial" for name in ("f[1].onnx", "f1.onnx", "g.onnx")]
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    with lock(tmp_path / "f[1].onnx"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"f[1].onnx", *names[1:]}


@pytest.mark.parametrize("result", ["", "f"])
def test_a_lock_left_on_another_machine_names_no_process_here(tmp_path: Path, result: str) -> None:
    file = tmp_path / (".f.lock" if result else ".lock")
    file.write_text(json.dumps({"pid": 7, "host": "another", "since": "", "command": ""}))
    (tmp_path / ".f.7-x8d7.partial").write_bytes(b"half")
    with lock(tmp_path / result):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".f.7-x8d7.partial"]


def test_a_file_in_a_folder_that_another_process_holds(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    with held_by_another(tmp_path) as process:
        words = rf"f\.onnx: in use by process {process.pid} on .* Wait until"
        with pytest.raises(OutputError, match=words), lock(tmp_path / "f.onnx"):
            pytest.fail("held by two")
        with lock(tmp_path / "inner" / "f.onnx"):  # a folder of its own
            pass
        process.kill()
    with lock(tmp_path / "f.onnx"):  # what it left holds nobody up
        pass


def test_a_folder_with_a_file_that_another_process_holds(tmp_path: Path) -> None:
    with held_by_another(tmp_path / "f.onnx") as process:
        with (
            pytest.raises(OutputError, match=rf"{tmp_path.name}: in use by process {process.pid} on"),
            lock(tmp_path),
        ):
            pytest.fail("held by two")
        assert [path.name for path in tmp_path.iterdir()] == [".f.onnx.lock"]
        process.kill()
    with lock(tmp_path):
        pass


def test_a_process_that_holds_a_folder_locks_files_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with lock(tmp_path), lock(Path("f.onnx")), lock(Path("g.onnx")):
        pass
    with lock(tmp_path / "f.onnx"), lock(Path(".")):
        pass
    assert list(tmp_path.iterdir()) == []


def test_half_written_files_bear_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr("os.fsync", lambda _: seen.extend(path.name for path in tmp_path.iterdir()))
    write_atomic(tmp_path / "a.onnx", b"whole")
    (name,) = seen
    assert name.startswith(f".a.onnx.{os.getpid()}-")
    assert name.endswith(".partial")


def test_held_twice_in_one_process_is_refused(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(OutputError, match=f"in use by process {os.getpid()} on"), lock(tmp_path):
        pytest.fail("held twice")


def test_an_error_inside_releases(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock(tmp_path / "f"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_says_nothing(tmp_path: Path) -> None:
    """Killed between making and writing it."""
    for text in ("", "{", "[1]", '{"pid": 1}'):
        (tmp_path / ".f.lock").write_text(text)
        with lock(tmp_path / "f"):
            pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"), lock(tmp_path / "file" / "f.onnx"):
        pytest.fail("held")


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_that_lives_on_holds_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ended = context.Event()
    child = context.Process(target=ended.wait)
    with lock(tmp_path / "f"):
        child.start()
    try:
        assert child.is_alive()
        with lock(tmp_path / "f"):
            pass
    finally:
        ended.set()
        child.join()


class NoLocks:
    """A file system that has none."""

    LOCK_EX = LOCK_NB = 0

    def flock(self, *_: Any) -> None:
        raise OSError(95, "Operation not supported")


@pytest.mark.parametrize(
    ("system", "reason"), [(None, "this system has no fcntl"), (NoLocks(), "its file system locks no files")]
)
def test_without_locks_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], system: Any, reason: str
) -> None:
    monkeypatch.setattr("compress.artifacts.locking.fcntl", system)
    monkeypatch.setattr("compress.artifacts.locking._told", set())
    for _ in range(2):
        with lock(tmp_path / "f"), lock(tmp_path / "f"):
            pass
    said = capsys.readouterr().err
    assert said.count("not locked") == 1
    assert reason in said
