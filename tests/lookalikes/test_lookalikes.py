"""Networks built as other projects build theirs go through the whole flow, and the commands of docs/presets.md work."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from compress.cli import app
from compress.data.processing import PRESETS
from compress.graph import from_torch, save_model
from compress.recipe import TaskSettings
from tests.lookalikes import making, networks

pytestmark = pytest.mark.slow
PAGE = making.PAGE.read_text()
COMMANDS = [
    command.replace("\\\n", " ")
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for command in block.strip().splitlines()
]


@pytest.mark.parametrize("name", making.LOOKALIKES)
def test_from_pytorch_to_int8(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With next to no training: every stage works, and the file is smaller. What they learn is in docs/presets.md."""
    few = {name: replace(making.LOOKALIKES[name], epochs=1, metric_min=0.0)}
    monkeypatch.setattr(making, "LOOKALIKES", few)
    monkeypatch.setattr(making, "GATES", {**making.GATES, "metric_drop": 1.0})
    report = making.make(name, tmp_path, (16, 8) if name == "mmocr" else (64, 16))
    assert [stage.stage for stage in report.stages][-4:] == ["pruned", "reconstructed", "finetuned", "int8"]
    assert all(gate.passed for gate in report.gates), report.gates
    assert report.stages[-1].parity is not None


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the page's commands name: models with random weights, charsets, crops."""
    folder = tmp_path_factory.mktemp("presets")
    making.write_numbers(folder / "words", 12, 0)
    for name, network, preset in (
        ("doctr", networks.DoctrCrnn, "doctr"),
        ("easyocr", networks.EasyCrnn, "easyocr"),
        ("mmocr", lambda: networks.EasyCrnn(), "mmocr"),
    ):
        torch.manual_seed(0)
        shape, made = PRESETS[preset]["recognition"].input, network().eval()
        with torch.no_grad():
            list(made.children())[-1].weight.mul_(30)  # sure of something, so that it reads more than blanks
        save_model(from_torch(made, torch.zeros(1, *shape)), folder / f"{name}_rec.onnx")
    for file in ("vocab.txt", "characters.txt", "lower_english_digits.txt"):
        (folder / file).write_text("\n".join("0123456789"))
    return folder


def test_the_page_has_commands_for_each_project() -> None:
    assert {command.split()[0] for command in COMMANDS} == {"compress"}
    for preset in ("doctr", "easyocr", "mmocr"):
        assert any(f"--preset {preset}" in command for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_page(command: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    given = shlex.split(command)[1:]
    if given[0] == "shrink":
        given += ["--epochs", "1", "--threads", "1"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output


def test_the_keys_of_the_page_are_those_of_recipes() -> None:
    import yaml

    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    task: dict[str, Any] = yaml.safe_load(block)["task"]
    settings = TaskSettings.model_validate({**task, "charset": "vocab.txt"})
    assert settings.processing.interpolation == "cubic"
    assert settings.processing.layout == "tnk"
