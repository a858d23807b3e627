"""`benchmarks.peers`: NNCF in a Python of its own, and what is said where that cannot be had."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks import nncf_int8, peers
from compress.errors import ModelError
from compress.zoo import models_folder

ROOT, ZOO = Path(__file__).parents[2], models_folder()
IMAGES = [np.full((1, 3, 4, width), width, np.float32) for width in (4, 8)]
NARROW = "--half-range"


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Another script in the place of nncf_int8.py: `images` are what it was given, `out` is where the file goes."""
    script = folder / "nncf_int8.py"
    head = "import sys, numpy as np\nmodel, stored, out = sys.argv[1:4]\nimages = list(np.load(stored).values())\n"
    script.write_text(head + code)
    monkeypatch.setattr(peers.nncf_int8, "__file__", str(script))


@pytest.mark.parametrize("half_range", [False, True])
def test_images_go_there_and_the_file_comes_back(  # type: ignore[no-untyped-def]
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half_range: bool
) -> None:
    code = "open(out, 'w').write(repr([i.shape for i in images]) + repr(sys.argv[4:]))\nprint('advice')\nprint('9.9')"
    stand_in(tmp_path, monkeypatch, code)
    made = tmp_path / "made" / "q.onnx"
    version = peers.quantize_nncf_in(Path(sys.executable), Path("m.onnx"), IMAGES, made, half_range=half_range)
    assert version == "9.9"
    assert made.read_text() == f"[(1, 3, 4, 4), (1, 3, 4, 8)]{[NARROW] if half_range else []}"


def test_a_failure_there_is_one_line_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "raise RuntimeError('no such operator')")
    with pytest.raises(ModelError, match=r"^NNCF fails in .*: RuntimeError: no such operator$"):
        peers.quantize_nncf_in(Path(sys.executable), Path("m.onnx"), IMAGES, tmp_path / "q.onnx")
    assert not (tmp_path / "q.onnx").exists()


def test_a_python_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"NNCF fails in no-such-python: .*No such file"):
        peers.quantize_nncf_in(Path("no-such-python"), Path("m.onnx"), IMAGES, tmp_path / "q.onnx")


class FakeNNCF(ModuleType):
    """NNCF as far as it is used; keeps what `quantize` was given, and gives the model back."""

    def __init__(self) -> None:
        super().__init__("nncf")
        self.OverflowFix = SimpleNamespace(ENABLE="enable")
        self.given: dict[str, Any] = {}

    def AdvancedQuantizationParameters(self, **settings: Any) -> dict[str, Any]:
        return settings

    def Dataset(self, items: list[Any]) -> list[Any]:
        return items

    def quantize(self, model: onnx.ModelProto, dataset: list[Any], **settings: Any) -> onnx.ModelProto:
        self.given = {"dataset": dataset, **settings}
        return model


@pytest.mark.parametrize(("half_range", "expected"), [(False, {}), (True, {"overflow_fix": "enable"})])
def test_nncf_is_given_its_best_chance(monkeypatch: pytest.MonkeyPatch, half_range: bool, expected: Any) -> None:
    """All images, the full bias correction, and nothing reported over the network."""
    nncf = FakeNNCF()
    monkeypatch.setitem(sys.modules, "nncf", nncf)
    monkeypatch.delenv("NNCF_CI", raising=False)
    model = ZOO / "direction_classifier.onnx"
    made = nncf_int8.quantize(model, IMAGES, half_range=half_range)
    assert made == onnx.load(model)
    assert [name for item in nncf.given.pop("dataset") for name in item] == [made.graph.input[0].name] * len(IMAGES)
    assert nncf.given == {"subset_size": 2, "fast_bias_correction": False, "advanced_parameters": expected}
    assert os.environ["NNCF_CI"]


class FakePip:
    """Stands for the commands that are run; `error` is what they fail with."""

    def __init__(self, error: str = "") -> None:
        self.error, self.commands = error, []  # type: ignore[var-annotated]

    def __call__(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        return subprocess.CompletedProcess(command, bool(self.error), "", self.error)


@pytest.fixture
def no_venv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.venv, "create", lambda folder, with_pip: folder.mkdir(exist_ok=True))


def test_the_environment_is_made_once(no_venv: None, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    pip = FakePip()
    monkeypatch.setattr(peers, "_run", pip)
    for _ in range(2):
        assert peers.peers_python(tmp_path / "v") == tmp_path / "v" / "bin" / "python"
    (command,) = pip.commands
    assert command[0] == str(tmp_path / "v" / "bin" / "python")
    assert command[-3:] == ["nncf", "onnx", "onnxruntime"]
    assert str(ROOT / "constraints.txt") in command


def test_without_a_registry_that_is_said_and_tried_again(no_venv, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    pip = FakePip("WARNING: retrying\nERROR: No matching distribution found for nncf\n")
    monkeypatch.setattr(peers, "_run", pip)
    for _ in range(2):
        with pytest.raises(ModelError, match=r"NNCF cannot be installed into .*: ERROR: No matching distribution"):
            peers.peers_python(tmp_path / "v")
    assert len(pip.commands) == 2


def test_another_python_does_not_see_this_ones_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    shown = peers._run([sys.executable, "-c", "import os; print(os.environ.get('PYTHONPATH'))"])
    assert shown.stdout.strip() == "None"
