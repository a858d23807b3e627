"""`scripts/peers.py`: NNCF in a Python of its own, and what is said where that cannot be had."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.errors import ModelError

SCRIPTS = Path(__file__).parents[2] / "scripts"
IMAGES = [np.full((1, 3, 4, width), width, np.float32) for width in (4, 8)]
NARROW = "--half-range"


@pytest.fixture(scope="module")
def peers() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        import peers

        yield peers


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, peers: Any, code: str) -> None:
    """Another script in the place of nncf_int8.py: `images` are what it was given, `out` is where the file goes."""
    script = folder / "nncf_int8.py"
    head = "import sys, numpy as np\nmodel, stored, out = sys.argv[1:4]\nimages = list(np.load(stored).values())\n"
    script.write_text(head + code)
    monkeypatch.setattr(peers.nncf_int8, "__file__", str(script))


@pytest.mark.parametrize("half_range", [False, True])
def test_images_go_there_and_the_file_comes_back(  # type: ignore[no-untyped-def]
    peers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half_range: bool
) -> None:
    code = "open(out, 'w').write(repr([i.shape for i in images]) + repr(sys.argv[4:]))\nprint('advice')\nprint('9.9')"
    stand_in(tmp_path, monkeypatch, peers, code)
    made = tmp_path / "made" / "q.onnx"
    version = peers.quantize_nncf_in(Path(sys.executable), Path("m.onnx"), IMAGES, made, half_range=half_range)
    assert version == "9.9"
    assert made.read_text() == f"[(1, 3, 4, 4), (1, 3, 4, 8)]{[NARROW] if half_range else []}"


def test_a_failure_there_is_one_line_here(peers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, peers, "raise RuntimeError('no such operator')")
    with pytest.raises(ModelError, match=r"^NNCF fails in .*: RuntimeError: no such operator$"):
        peers.quantize_nncf_in(Path(sys.executable), Path("m.onnx"), IMAGES, tmp_path / "q.onnx")
    assert not (tmp_path / "q.onnx").exists()


def test_a_python_that_is_not_there_is_said(peers: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"NNCF fails in no-such-python: .*No such file"):
        peers.quantize_nncf_in(Path("no-such-python"), Path("m.onnx"), IMAGES, tmp_path / "q.onnx")


class FakePip:
    """Stands for the commands that are run; `error` is what they fail with."""

    def __init__(self, error: str = "") -> None:
        self.error, self.commands = error, []  # type: ignore[var-annotated]

    def __call__(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        return subprocess.CompletedProcess(command, bool(self.error), "", self.error)


@pytest.fixture
def no_venv(peers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.venv, "create", lambda folder, with_pip: folder.mkdir(exist_ok=True))


def test_the_environment_is_made_once(peers: Any, no_venv: None, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    pip = FakePip()
    monkeypatch.setattr(peers, "_run", pip)
    for _ in range(2):
        assert peers.peers_python(tmp_path / "v") == tmp_path / "v" / "bin" / "python"
    (command,) = pip.commands
    assert command[0] == str(tmp_path / "v" / "bin" / "python")
    assert command[-3:] == ["nncf", "onnx", "onnxruntime"]
    assert str(SCRIPTS.parent / "constraints.txt") in command


def test_without_a_registry_that_is_said_and_tried_again(peers, no_venv, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    pip = FakePip("WARNING: retrying\nERROR: No matching distribution found for nncf\n")
    monkeypatch.setattr(peers, "_run", pip)
    for _ in range(2):
        with pytest.raises(ModelError, match=r"NNCF cannot be installed into .*: ERROR: No matching distribution"):
            peers.peers_python(tmp_path / "v")
    assert len(pip.commands) == 2


def test_another_python_does_not_see_this_ones_packages(peers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    shown = peers._run([sys.executable, "-c", "import os; print(os.environ.get('PYTHONPATH'))"])
    assert shown.stdout.strip() == "None"
