"""Whatever is fed to the program: it ends soon, with 0, 1 or 2, one clear line for 2, and writes nothing but --out."""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fuzzing.cases import make_case
from tests.fuzzing.inputs import write_finished, write_inputs

COUNT = int(os.environ.get("FUZZ_COUNT", "500"))
FIRST = int(os.environ.get("FUZZ_FIRST", "0"))
SECONDS = 60
"""Of a processor's time; none takes more than about 3. Ten times as long is what a command may wait, besides."""
LIBRARIES = {".ses"}
"""What libraries leave in the folder for temporary files: onnxruntime's telemetry, the name of its session."""
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code and what it said, or what became of its process."""

    code: int = -1
    err: str = ""
    died: str = ""


class Worker:
    """A process that runs commands one after the other; started again if one kills it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home / "stderr.txt"
        self._process: subprocess.Popen[str] | None = None

    def run(self, args: list[str], folder: Path) -> Ended:
        """Run a command in a folder."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"args": args, "folder": str(folder), "seconds": SECONDS}) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], 11 * SECONDS)  # native code does not see the alarm
        line = process.stdout.readline() if ready else ""
        if not line:
            self.stop()
            ended = process.returncode
            return Ended(died="hangs in native code" if not ready else f"killed by {signal.Signals(-ended).name}")
        answer = json.loads(line)
        if "late" in answer:
            return Ended(died=f"hangs: {answer['late']}")
        if answer["escaped"]:
            return Ended(died=answer["escaped"])
        return Ended(answer["rc"], answer["err"])

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> "subprocess.Popen[str]":
        temporary = self.home / "tmp"
        temporary.mkdir(exist_ok=True)
        own = {"HOME": str(self.home), "COMPRESS_CACHE": str(self.home / "cache"), "TMPDIR": str(temporary)}
        settings = {**os.environ, **own, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzzing.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=settings,
                text=True,
            )
        return self._process


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("home"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs that work, and what a run makes of them."""
    folder = tmp_path_factory.mktemp("good")
    write_inputs(folder)
    write_finished(folder)
    return folder


def snapshot(*folders: Path) -> dict[str, tuple[int, int]]:
    """Path of every file and folder -> size and time of change."""
    found = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in found}


def complaint(ended: Ended) -> str:
    """What is wrong with how a command ended; empty if nothing is."""
    if ended.died:
        return ended.died
    if ended.code not in (0, 1, 2):
        return f"exit code {ended.code}: {ended.err}"
    if "Traceback" in ended.err or "internal error" in ended.err:
        return ended.err
    lines = [line for line in ended.err.splitlines() if re.match(r"(Error|Usage|Try)\b", line)]
    if ended.code == 2 and (not lines or not re.match(r"Error: \S", lines[-1])):
        return f"exit code 2 without an error: {ended.err!r}"
    return f"{len(ended.err)} characters of errors: {ended.err[:300]}" if len(ended.err) > 20_000 else ""


@pytest.mark.slow
def test_no_input_breaks_the_program(good: Path, worker: Worker, tmp_path: Path) -> None:
    complaints: list[str] = []
    codes: dict[int, int] = {}
    outside = tmp_path / "outside"
    outside.mkdir()
    for number in range(FIRST, FIRST + COUNT):
        folder = outside / "case"
        folder.mkdir()
        args = make_case(number, good, folder)
        before = snapshot(outside)
        ended = worker.run(args, folder / "in")
        codes[ended.code] = codes.get(ended.code, 0) + 1
        wrong = complaint(ended)
        out = str(folder / "out")
        changed = {path for path, _ in before.items() ^ snapshot(outside).items() if not path.startswith(out)}
        left = sorted({path.name for path in (worker.home / "tmp").iterdir()} - LIBRARIES)
        if changed or left:
            wrong += f"\nwritten outside --out: {sorted(changed)[:3]} {left[:3]}"
            shutil.rmtree(worker.home / "tmp", ignore_errors=True)
            (worker.home / "tmp").mkdir()
        if wrong:
            complaints.append(f"case {number}: compress {' '.join(args)}\n{wrong}")
        shutil.rmtree(folder)
    assert not complaints, "\n\n".join([*complaints, f"{len(complaints)} of {COUNT}; exit codes: {codes}"])
    assert codes.keys() <= {0, 1, 2}
    assert codes[2] > COUNT / 4, "mutations that change little prove little"
    assert "Traceback" not in worker.log.read_text(errors="replace")
