"""`scripts/compare_tools.py`: other tools' int8 files beside ours, and what is said where one cannot be made."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from compress import artifacts
from compress.artifacts import Cost, Latency, Machine, Score, StageResult
from compress.errors import CompressError, ModelError
from compress.graph import is_quantised, read_model
from compress.measure.session import Session
from tests.pipeline import tiny

SCRIPTS = Path(__file__).parents[2] / "scripts"
IMAGES = [np.random.default_rng(seed).standard_normal((1, *tiny.SHAPE)).astype(np.float32) for seed in range(4)]


@pytest.fixture(scope="module")
def compare_tools() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        import compare_tools

        yield compare_tools


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.write_inputs(tmp_path_factory.mktemp("compare"), 6)
    tiny.recipe(folder)
    return folder


@pytest.fixture
def no_nncf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)  # what `import` takes for not installed


class FakeNNCF(ModuleType):
    """NNCF as far as it is used; keeps what `quantize` was given, and gives the model back."""

    def __init__(self, fail: bool = False) -> None:
        super().__init__("nncf")
        self.fail = fail
        self.OverflowFix = SimpleNamespace(ENABLE="enable")
        self.given: dict[str, Any] = {}

    def AdvancedQuantizationParameters(self, **settings: Any) -> dict[str, Any]:
        return settings

    def Dataset(self, items: list[Any]) -> list[Any]:
        return items

    def quantize(self, model: onnx.ModelProto, dataset: list[Any], **settings: Any) -> onnx.ModelProto:
        if self.fail:
            raise RuntimeError("no such operator\nat line 3")
        self.given = {"dataset": dataset, **settings}
        print("Statistics collection 100%")
        return model


def run(compare_tools: ModuleType, inputs: Path, out: str, *options: str) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["compare_tools.py", str(inputs / "recipe.yaml"), "--out", str(inputs / out), *options]
        patch.setattr(sys, "argv", arguments)
        assert compare_tools.main() == 0
    return inputs / out


# --- whole ------------------------------------------------------------------------------------------------------


def test_all_files_in_one_table(
    compare_tools: ModuleType, inputs: Path, no_nncf: None, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = inputs / "run"
    for name in ("finetuned.onnx", "int8.onnx"):
        artifacts.write_atomic(ours / name, (inputs / "model.onnx").read_bytes())
    folder = run(compare_tools, inputs, "out", "--ours", str(ours))
    found = artifacts.load(compare_tools.Comparison, folder / "comparison.json")
    assert [result.stage for result in found.files] == [
        "deployed",
        "canonical form",
        "onnxruntime int8",
        "onnxruntime int8, canonical form",
        "onnxruntime int8, canonical form, percentile",
        "ours, float",
        "ours, int8",
    ]
    assert found.calibration == 8  # the recipe's
    assert len({result.latency.runs for result in found.files}) == 1
    assert is_quantised(read_model(folder / "onnxruntime_int8.onnx"))
    assert found.files[-1].score == found.files[0].score  # the same network, here
    table = (folder / "comparison.md").read_text()
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(found.files) + len(found.missing)
    assert len({line.count("|") for line in lines}) == 1
    assert "| NNCF int8 | not measured |" in table
    assert "same 8 training images" in table
    assert "NNCF int8: not measured: NNCF is not installed" in capsys.readouterr().err


def test_what_a_tool_cannot_do_leaves_its_row_out(
    compare_tools: ModuleType, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", FakeNNCF(fail=True))
    folder = run(compare_tools, inputs, "failing", "--set", "compare.rounds=3")
    missing = json.loads((folder / "comparison.json").read_text())["missing"]
    assert missing["NNCF int8"] == "NNCF fails: RuntimeError: no such operator"


def test_tools_get_weights_that_cannot_saturate_where_they_would(compare_tools: ModuleType) -> None:
    files = {compare_tools.DEPLOYED: Path("a"), compare_tools.CANONICAL: Path("b")}
    plain, narrow = (set(compare_tools.tool_jobs(files, saturates)) for saturates in (False, True))
    assert narrow - plain == {"NNCF int8, canonical form, 7-bit weights"}
    assert plain <= narrow


def test_onnxruntime_gets_the_narrow_weights(compare_tools: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(compare_tools, "quantize_static_minmax", lambda *_, reduce_range: given.append(reduce_range))
    files = {compare_tools.DEPLOYED: Path("a"), compare_tools.CANONICAL: Path("b")}
    for saturates in (False, True):
        compare_tools.tool_jobs(files, saturates)["onnxruntime int8"]([], Path("c"))
    assert given == [False, True]


# --- NNCF -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("half_range", "expected"), [(False, {}), (True, {"overflow_fix": "enable"})])
def test_nncf_is_asked_for_its_best(  # type: ignore[no-untyped-def]
    compare_tools: ModuleType, inputs: Path, tmp_path: Path, monkeypatch, capsys, half_range: bool, expected: Any
) -> None:
    """All images, the full bias correction, nothing reported over the network, and no bars in our output."""
    nncf = FakeNNCF()
    monkeypatch.setitem(sys.modules, "nncf", nncf)
    monkeypatch.delenv("NNCF_CI", raising=False)
    compare_tools.quantize_nncf(inputs / "model.onnx", IMAGES, tmp_path / "q.onnx", half_range=half_range)
    assert [name for item in nncf.given.pop("dataset") for name in item] == ["x"] * len(IMAGES)
    assert nncf.given == {"subset_size": 4, "fast_bias_correction": False, "advanced_parameters": expected}
    assert os.environ["NNCF_CI"]
    assert capsys.readouterr().out == ""


def test_nncf_that_is_not_installed_is_said(compare_tools: ModuleType, tmp_path: Path, no_nncf: None) -> None:
    with pytest.raises(ModelError, match=r"NNCF is not installed .*pip install '.\[compare\]'"):
        compare_tools.quantize_nncf(tmp_path / "m.onnx", IMAGES, tmp_path / "q.onnx")


@pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="NNCF is not installed: pip install '.[compare]'")
@pytest.mark.filterwarnings("ignore")  # NNCF's own
def test_nncf_makes_a_file_that_runs(compare_tools: ModuleType, inputs: Path, tmp_path: Path) -> None:
    compare_tools.quantize_nncf(inputs / "model.onnx", IMAGES, tmp_path / "q.onnx")
    assert is_quantised(read_model(tmp_path / "q.onnx"))
    batch = np.concatenate(IMAGES)
    expected, found = (Session(file).run(batch) for file in (inputs / "model.onnx", tmp_path / "q.onnx"))
    np.testing.assert_allclose(found, expected, atol=0.05)


# --- the table --------------------------------------------------------------------------------------------------


def test_a_line_of_the_table(compare_tools: ModuleType) -> None:
    score = Score(0.71, "exact", 600, {"alnum": 0.8133, "count_x": 600.0})
    latency = Latency(4.392, 4.218, 4.561, 1, 50, speedup=1.449)
    result = StageResult("ours, int8", "int8.onnx", Cost(1, 44_183_808, 527_000, (3, 32, 320)), score, latency)
    assert compare_tools.cells(result, ["alnum"]) == [
        *("ours, int8", "0.7100", "0.8133", "527.0", "44.18 M", "4.39 [4.22-4.56]", "1.45x")
    ]
    machine = Machine("A CPU", ("avx2", "avx512_vnni"), 2, "Linux", {"nncf": "3.4.0"})
    given = compare_tools.Comparison("the command", "today", machine, 256, (result,), {"NNCF int8": "it fails"})
    text = compare_tools.render(given)
    assert "| file | exact | alnum | KB |" in text  # counts are in the caption
    for part in (
        "`the command`",
        "nncf 3.4.0",
        "on 600 validation",
        "3x32x320",
        "8-bit weights",
        "256 training images",
    ):
        assert part in text
    assert "ours: pruned, and trained" in text
    saturating = dataclasses.replace(given, machine=dataclasses.replace(machine, flags=("avx2",)))
    assert "7-bit weights, since 8 bits saturate on this CPU" in compare_tools.render(saturating)


# --- what users get wrong ---------------------------------------------------------------------------------------


def test_a_folder_that_is_no_finished_run_is_refused(compare_tools: ModuleType, inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(CompressError, match=r"--ours: .*: has no finetuned.onnx. Give the folder of a finished"):
        run(compare_tools, inputs, "x", "--ours", str(tmp_path))


@pytest.mark.slow
def test_as_a_program_it_helps_and_fails_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "compare_tools.py")]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert (
        "python scripts/compare_tools.py recipes/ppocr_rec_en.yaml --ours runs/ppocr_rec_en --out runs/compare"
        in shown.stdout
    )
    failed = subprocess.run([*command, "no.yaml", "--out", str(tmp_path)], capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.startswith("Error: no.yaml: cannot be read")
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(("count", "side", "expected"), [(100, 32, 64), (10, 32, 10), (80, 640, 16), (3, 8000, 1)])
def test_percentiles_take_fewer_of_large_images(compare_tools, count: int, side: int, expected: int) -> None:
    images = [np.broadcast_to(np.float32(0), (1, 3, side, side))] * count
    assert compare_tools.percentile_count(images) == expected
